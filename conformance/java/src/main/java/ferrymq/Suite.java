// The Java client: confirms, returned messages, and errors that close one channel only.
package ferrymq;

import com.rabbitmq.client.AMQP;
import com.rabbitmq.client.BuiltinExchangeType;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

public final class Suite {
  private static final long DEADLINE_MS = 20_000;

  private interface Action {
    void run() throws Exception;
  }

  /** Prints `ok` or `FAIL`; the first failure ends the program. */
  private static void check(String name, Action action) {
    try {
      action.run();
    } catch (Throwable error) {
      System.out.println("FAIL java: " + name + ": " + error);
      error.printStackTrace();
      System.exit(1);
    }
    System.out.println("ok java: " + name);
  }

  private static void equal(Object expected, Object actual) {
    if (!Objects.equals(expected, actual)) {
      throw new AssertionError("expected " + expected + ", got " + actual);
    }
  }

  private static String unique(String subject) {
    return "conformance.java." + subject + "." + UUID.randomUUID().toString().substring(0, 8);
  }

  private static String text(Delivery delivery) {
    return new String(delivery.getBody());
  }

  private static <T> T next(BlockingQueue<T> queue) throws InterruptedException {
    T found = queue.poll(DEADLINE_MS, TimeUnit.MILLISECONDS);
    if (found == null) {
      throw new AssertionError("the deadline passed");
    }
    return found;
  }

  /** The next deliveries of a queue, not acked unless autoAck. */
  private static List<Delivery> take(Channel channel, String queue, int count, boolean autoAck)
      throws Exception {
    BlockingQueue<Delivery> deliveries = new LinkedBlockingQueue<>();
    String tag = channel.basicConsume(queue, autoAck, (t, it) -> deliveries.add(it), t -> {});
    List<Delivery> found = new ArrayList<>();
    while (found.size() < count) {
      found.add(next(deliveries));
    }
    channel.basicCancel(tag);
    return found;
  }

  private static void publish(Channel channel, String exchange, String key, String body)
      throws Exception {
    channel.basicPublish(exchange, key, MessageProperties.PERSISTENT_BASIC, body.getBytes());
    channel.waitForConfirmsOrDie(DEADLINE_MS);
  }

  private static void basics(Channel channel, String exchange, String queue) {
    check("publishes with confirms, consumes in order, acks", () -> {
      List<String> expected = new ArrayList<>();
      for (int index = 0; index < 20; index++) {
        expected.add("" + index);
        publish(channel, exchange, "key", "" + index);
      }
      List<Delivery> found = take(channel, queue, 20, false);
      equal(expected, found.stream().map(Suite::text).toList());
      channel.basicAck(found.get(19).getEnvelope().getDeliveryTag(), true);
      equal(0L, channel.messageCount(queue));
    });
    check("nack with requeue brings the message again, without it does not", () -> {
      publish(channel, exchange, "key", "again");
      Delivery first = take(channel, queue, 1, false).get(0);
      equal(false, first.getEnvelope().isRedeliver());
      channel.basicNack(first.getEnvelope().getDeliveryTag(), false, true);
      Delivery second = take(channel, queue, 1, false).get(0);
      equal(true, second.getEnvelope().isRedeliver());
      channel.basicNack(second.getEnvelope().getDeliveryTag(), false, false);
      equal(null, channel.basicGet(queue, true));
    });
    check("an unroutable mandatory message is returned", () -> {
      BlockingQueue<String> returns = new LinkedBlockingQueue<>();
      channel.addReturnListener(it ->
          returns.add(it.getReplyCode() + " " + it.getReplyText() + " " + new String(it.getBody())));
      channel.basicPublish(exchange, "nowhere", true, null, "lost".getBytes());
      channel.waitForConfirmsOrDie(DEADLINE_MS);
      equal("312 NO_ROUTE lost", next(returns));
      channel.clearReturnListeners();
    });
    check("properties and header tables come back as they were sent", () -> {
      Map<String, Object> headers = new HashMap<>();
      headers.put("int", 7);
      headers.put("long", 1L << 40);
      headers.put("double", 2.5);
      headers.put("true", true);
      headers.put("date", new Date(1_700_000_000_000L));
      headers.put("list", List.of(1, 2L, false));
      headers.put("null", null);
      AMQP.BasicProperties sent = new AMQP.BasicProperties.Builder().headers(headers)
          .contentType("text/plain").contentEncoding("utf-8").deliveryMode(2).priority(3)
          .correlationId("c").replyTo("r").expiration("60000").messageId("m")
          .timestamp(new Date(1_700_000_000_000L)).type("t").userId("guest").appId("a").build();
      byte[] body = new byte[400_000];
      Arrays.fill(body, (byte) 7);
      channel.basicPublish(exchange, "key", sent, body);
      channel.waitForConfirmsOrDie(DEADLINE_MS);
      Delivery found = take(channel, queue, 1, true).get(0);
      equal(sent.toString(), found.getProperties().toString());
      equal(true, Arrays.equals(body, found.getBody()));
    });
  }

  private static void refusals(Connection connection, String queue) {
    check("a different redeclaration is refused with 406 and the connection goes on", () -> {
      Channel channel = connection.createChannel();
      try {
        channel.queueDeclare(queue, true, false, false, Map.of("x-max-length", 3));
        throw new AssertionError("the broker did not refuse");
      } catch (IOException error) {
        ShutdownSignalException signal = (ShutdownSignalException) error.getCause();
        AMQP.Channel.Close close = (AMQP.Channel.Close) signal.getReason();
        equal(406, close.getReplyCode());
        String expected = "inequivalent arg 'x-max-length' for queue '" + queue + "'";
        equal(true, close.getReplyText().contains(expected));
      }
      Channel other = connection.createChannel();
      equal(queue, other.queueDeclare(queue, true, false, false, null).getQueue());
      other.close();
    });
  }

  private static void workQueue(Connection connection) {
    check("a work queue shares its messages among consumers with prefetch 1", () -> {
      String queue = unique("work");
      BlockingQueue<Integer> taken = new LinkedBlockingQueue<>();
      Channel[] channels = {connection.createChannel(), connection.createChannel()};
      channels[0].queueDeclare(queue, true, false, false, null);
      for (int index = 0; index < 2; index++) {
        int worker = index;
        Channel channel = channels[index];
        channel.basicQos(1);
        channel.basicConsume(queue, false, (tag, it) -> {
          taken.add(worker);
          channel.basicAck(it.getEnvelope().getDeliveryTag(), false);
        }, tag -> {});
      }
      for (int index = 0; index < 10; index++) {
        channels[0].basicPublish("", queue, null, ("" + index).getBytes());
      }
      int[] counts = new int[2];
      for (int index = 0; index < 10; index++) {
        counts[next(taken)]++;
      }
      equal(true, counts[0] > 0 && counts[1] > 0);
      channels[0].queueDelete(queue);
      channels[0].close();
      channels[1].close();
    });
  }

  private static void patterns(Channel channel) {
    check("a fanout exchange gives every queue a copy", () -> {
      String logs = unique("logs");
      channel.exchangeDeclare(logs, BuiltinExchangeType.FANOUT);
      String[] queues = {channel.queueDeclare().getQueue(), channel.queueDeclare().getQueue()};
      for (String queue : queues) {
        channel.queueBind(queue, logs, "");
      }
      publish(channel, logs, "", "news");
      for (String queue : queues) {
        equal("news", text(take(channel, queue, 1, true).get(0)));
      }
      channel.exchangeDelete(logs);
    });
    check("a topic exchange routes by words", () -> {
      String topics = unique("topics");
      channel.exchangeDeclare(topics, BuiltinExchangeType.TOPIC);
      String queue = channel.queueDeclare().getQueue();
      channel.queueBind(queue, topics, "*.*.rabbit");
      channel.queueBind(queue, topics, "lazy.#");
      for (String key : List.of("lazy.brown.rabbit", "quick.fox", "lazy", "quick.brown.rabbit")) {
        publish(channel, topics, key, key);
      }
      List<String> found = take(channel, queue, 3, true).stream().map(Suite::text).toList();
      equal(List.of("lazy.brown.rabbit", "lazy", "quick.brown.rabbit"), found);
      channel.exchangeDelete(topics);
    });
    check("a remote call is answered through direct reply-to", () -> {
      String queue = channel.queueDeclare().getQueue();
      BlockingQueue<Delivery> replies = new LinkedBlockingQueue<>();
      channel.basicConsume("amq.rabbitmq.reply-to", true, (tag, it) -> replies.add(it), tag -> {});
      AMQP.BasicProperties call = new AMQP.BasicProperties.Builder()
          .replyTo("amq.rabbitmq.reply-to").correlationId("7").build();
      channel.basicPublish("", queue, call, "ping".getBytes());
      AMQP.BasicProperties asked = take(channel, queue, 1, true).get(0).getProperties();
      AMQP.BasicProperties answer =
          new AMQP.BasicProperties.Builder().correlationId(asked.getCorrelationId()).build();
      channel.basicPublish("", asked.getReplyTo(), answer, "pong".getBytes());
      Delivery reply = next(replies);
      equal("7 pong", reply.getProperties().getCorrelationId() + " " + text(reply));
    });
  }

  public static void main(String[] arguments) throws Exception {
    String url = System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2F");
    ConnectionFactory factory = new ConnectionFactory();
    factory.setUri(url);
    factory.setAutomaticRecoveryEnabled(false);
    Connection connection = factory.newConnection();
    Channel channel = connection.createChannel();
    String exchange = unique("exchange");
    String queue = unique("queue");
    check("connects and declares", () -> {
      channel.confirmSelect();
      channel.exchangeDeclare(exchange, BuiltinExchangeType.DIRECT, true);
      channel.queueDeclare(queue, true, false, false, null);
      channel.queueBind(queue, exchange, "key");
    });
    basics(channel, exchange, queue);
    refusals(connection, queue);
    workQueue(connection);
    patterns(channel);
    check("deletes and closes", () -> {
      channel.queueDelete(queue);
      channel.exchangeDelete(exchange);
      connection.close();
    });
  }
}
