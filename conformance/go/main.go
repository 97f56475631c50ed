// amqp091-go: deferred confirms, returned messages, errors that close one channel only.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const deadline = 20 * time.Second

func unique(subject string) string {
	return "conformance.go." + subject + "." + rand.Text()[:8]
}

// check prints `ok` or `FAIL`; the first failure ends the program.
func check(name string, action func() error) {
	done := make(chan error, 1)
	go func() { done <- action() }()
	var err error
	select {
	case err = <-done:
	case <-time.After(deadline):
		err = errors.New("the deadline passed")
	}
	if err != nil {
		fmt.Printf("FAIL amqp091-go: %s: %v\n", name, err)
		os.Exit(1)
	}
	fmt.Printf("ok amqp091-go: %s\n", name)
}

func equal(expected, actual any) error {
	if !reflect.DeepEqual(expected, actual) {
		return fmt.Errorf("expected %v, got %v", expected, actual)
	}
	return nil
}

// take returns the next deliveries of a queue, not acked unless autoAck.
func take(channel *amqp.Channel, queue string, count int, autoAck bool) ([]amqp.Delivery, error) {
	tag := unique("tag")
	deliveries, err := channel.Consume(queue, tag, autoAck, false, false, false, nil)
	if err != nil {
		return nil, err
	}
	var found []amqp.Delivery
	limit := time.After(deadline)
	for len(found) < count {
		select {
		case delivery, open := <-deliveries:
			if !open {
				return nil, errors.New("the channel was closed")
			}
			found = append(found, delivery)
		case <-limit:
			return nil, fmt.Errorf("%d of %d deliveries came", len(found), count)
		}
	}
	return found, channel.Cancel(tag, false)
}

func publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false, message)
	if err != nil || confirmation == nil {
		return err
	}
	acked, err := confirmation.WaitContext(ctx)
	if err == nil && !acked {
		err = errors.New("the broker nacked")
	}
	return err
}

func basics(channel *amqp.Channel, exchange, queue string) {
	check("publishes with confirms, consumes in order, acks", func() error {
		var expected []string
		for index := range 20 {
			body := fmt.Sprint(index)
			expected = append(expected, body)
			message := amqp.Publishing{Body: []byte(body), DeliveryMode: amqp.Persistent}
			if err := publish(channel, exchange, "key", message); err != nil {
				return err
			}
		}
		found, err := take(channel, queue, 20, false)
		if err != nil {
			return err
		}
		var actual []string
		for _, delivery := range found {
			actual = append(actual, string(delivery.Body))
		}
		if err := found[19].Ack(true); err != nil {
			return err
		}
		state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		return errors.Join(err, equal(expected, actual), equal(0, state.Messages))
	})
	check("nack with requeue brings the message again, without it does not", func() error {
		if err := publish(channel, exchange, "key", amqp.Publishing{Body: []byte("again")}); err != nil {
			return err
		}
		for _, redelivered := range []bool{false, true} {
			found, err := take(channel, queue, 1, false)
			if err != nil {
				return err
			}
			if err := equal(redelivered, found[0].Redelivered); err != nil {
				return err
			}
			if err := found[0].Nack(false, !redelivered); err != nil {
				return err
			}
		}
		_, ok, err := channel.Get(queue, true)
		return errors.Join(err, equal(false, ok))
	})
	check("an unroutable mandatory message is returned", func() error {
		returns := channel.NotifyReturn(make(chan amqp.Return, 1))
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		lost := amqp.Publishing{Body: []byte("lost")}
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, exchange, "nowhere", true, false, lost)
		if err != nil {
			return err
		}
		returned := <-returns
		acked, err := confirmation.WaitContext(ctx)
		return errors.Join(err, equal(true, acked), equal(uint16(312), returned.ReplyCode),
			equal("NO_ROUTE", returned.ReplyText), equal("lost", string(returned.Body)))
	})
}

func content(channel *amqp.Channel, exchange, queue string) {
	check("properties and header tables come back as they were sent", func() error {
		headers := amqp.Table{
			"text": "å", "byte": byte(200), "int16": int16(-3), "int32": int32(-70000), "int64": int64(1) << 40,
			"float": float32(1.5), "double": 2.25, "true": true, "nil": nil, "bytes": []byte{0, 255},
			"decimal": amqp.Decimal{Scale: 2, Value: 314}, "when": time.Unix(1700000000, 0),
			"table": amqp.Table{"deep": amqp.Table{"x": "y"}}, "list": []any{int32(1), "two"},
		}
		sent := amqp.Publishing{Headers: headers, ContentType: "text/plain", ContentEncoding: "utf-8", Priority: 7,
			CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m", Timestamp: time.Unix(1700000000, 0),
			Type: "t", UserId: "guest", AppId: "a", Body: bytes.Repeat([]byte("x"), 400000)}
		if err := publish(channel, exchange, "key", sent); err != nil {
			return err
		}
		found, ok, err := channel.Get(queue, true)
		return errors.Join(err, equal(true, ok), equal(headers, found.Headers), equal(sent.Body, found.Body),
			equal([]any{sent.ContentType, sent.ContentEncoding, sent.Priority, sent.CorrelationId, sent.ReplyTo,
				sent.Expiration, sent.MessageId, sent.Timestamp.Unix(), sent.Type, sent.UserId, sent.AppId},
				[]any{found.ContentType, found.ContentEncoding, found.Priority, found.CorrelationId, found.ReplyTo,
					found.Expiration, found.MessageId, found.Timestamp.Unix(), found.Type, found.UserId, found.AppId}))
	})
}

func refusals(connection *amqp.Connection, queue string) {
	check("a different redeclaration is refused with 406 and the connection goes on", func() error {
		channel, err := connection.Channel()
		if err != nil {
			return err
		}
		_, err = channel.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-expires": int32(1000)})
		var refused *amqp.Error
		if !errors.As(err, &refused) {
			return fmt.Errorf("the broker did not refuse: %v", err)
		}
		if !strings.Contains(refused.Reason, "inequivalent arg 'x-expires' for queue '"+queue+"'") {
			return errors.New(refused.Reason)
		}
		other, err := connection.Channel()
		if err != nil {
			return err
		}
		_, err = other.QueueDeclare(queue, true, false, false, false, nil)
		return errors.Join(equal(406, refused.Code), err, other.Close())
	})
}

func workQueue(connection *amqp.Connection) {
	check("a work queue shares its messages among consumers with prefetch 1", func() error {
		queue := unique("work")
		taken := make(chan int, 10)
		var channels [2]*amqp.Channel
		for index := range channels {
			channel, err := connection.Channel()
			if err != nil {
				return err
			}
			channels[index] = channel
			_, err = channel.QueueDeclare(queue, true, false, false, false, nil)
			if err := errors.Join(err, channel.Qos(1, 0, false)); err != nil {
				return err
			}
			deliveries, err := channel.Consume(queue, "", false, false, false, false, nil)
			if err != nil {
				return err
			}
			go func() {
				for delivery := range deliveries {
					taken <- index
					_ = delivery.Ack(false)
				}
			}()
		}
		for index := range 10 {
			if err := publish(channels[0], "", queue, amqp.Publishing{Body: []byte{byte(index)}}); err != nil {
				return err
			}
		}
		counts := [2]int{}
		for range 10 {
			counts[<-taken]++
		}
		if counts[0] == 0 || counts[1] == 0 {
			return fmt.Errorf("one worker got everything: %v", counts)
		}
		_, err := channels[0].QueueDelete(queue, false, false, false)
		return errors.Join(err, channels[0].Close(), channels[1].Close())
	})
}

func route(channel *amqp.Channel, kind string, bindings []string, keys []string, expected [][]string) error {
	exchange := unique(kind)
	if err := channel.ExchangeDeclare(exchange, kind, false, true, false, false, nil); err != nil {
		return err
	}
	var queues []string
	for _, binding := range bindings {
		queue, err := channel.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			return err
		}
		if err := channel.QueueBind(queue.Name, binding, exchange, false, nil); err != nil {
			return err
		}
		queues = append(queues, queue.Name)
	}
	for _, key := range keys {
		if err := publish(channel, exchange, key, amqp.Publishing{Body: []byte(key)}); err != nil {
			return err
		}
	}
	for index, queue := range queues {
		found, err := take(channel, queue, len(expected[index]), true)
		if err != nil {
			return err
		}
		var actual []string
		for _, delivery := range found {
			actual = append(actual, delivery.RoutingKey)
		}
		if err := equal(expected[index], actual); err != nil {
			return err
		}
	}
	return nil
}

func patterns(channel *amqp.Channel) {
	check("a fanout exchange gives every queue a copy", func() error {
		return route(channel, "fanout", []string{"", "x"}, []string{"news"}, [][]string{{"news"}, {"news"}})
	})
	check("a topic exchange routes by words", func() error {
		keys := []string{"a.orange.b", "lazy.x", "lazy", "orange"}
		expected := [][]string{{"a.orange.b"}, {"lazy.x", "lazy"}}
		return route(channel, "topic", []string{"*.orange.*", "lazy.#"}, keys, expected)
	})
	check("a remote call is answered through direct reply-to", func() error {
		queue, err := channel.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			return err
		}
		replies, err := channel.Consume("amq.rabbitmq.reply-to", "", true, false, false, false, nil)
		if err != nil {
			return err
		}
		call := amqp.Publishing{ReplyTo: "amq.rabbitmq.reply-to", CorrelationId: "7", Body: []byte("ping")}
		if err := publish(channel, "", queue.Name, call); err != nil {
			return err
		}
		found, err := take(channel, queue.Name, 1, true)
		if err != nil {
			return err
		}
		answer := amqp.Publishing{CorrelationId: found[0].CorrelationId, Body: []byte("pong")}
		if err := publish(channel, "", found[0].ReplyTo, answer); err != nil {
			return err
		}
		reply := <-replies
		return errors.Join(equal("7", reply.CorrelationId), equal("pong", string(reply.Body)))
	})
}

func main() {
	url := os.Getenv("AMQP_URL")
	if url == "" {
		url = "amqp://guest:guest@127.0.0.1:5672/%2F"
	}
	var connection *amqp.Connection
	var channel *amqp.Channel
	exchange, queue := unique("exchange"), unique("queue")
	check("connects and declares", func() (err error) {
		if connection, err = amqp.Dial(url); err != nil {
			return err
		}
		if channel, err = connection.Channel(); err != nil {
			return err
		}
		_, declared := channel.QueueDeclare(queue, true, false, false, false, nil)
		return errors.Join(channel.Confirm(false), channel.ExchangeDeclare(exchange, "direct", true, false, false, false, nil),
			declared, channel.QueueBind(queue, "key", exchange, false, nil))
	})
	basics(channel, exchange, queue)
	content(channel, exchange, queue)
	refusals(connection, queue)
	workQueue(connection)
	patterns(channel)
	check("deletes and closes", func() error {
		_, err := channel.QueueDelete(queue, false, false, false)
		return errors.Join(err, channel.ExchangeDelete(exchange, false, false), connection.Close())
	})
}
