"""The second program of the tutorial; it ends after the first message."""

import os
import sys

import pika

durable = "durable" in sys.argv[1:]
url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
queue = "task_queue" if durable else "hello"
channel.queue_declare(queue=queue, durable=durable)
connection.call_later(20, lambda: sys.exit("no message came"))


def callback(ch, method, properties, body):
    print(f" [x] Received {body.decode()}")
    ch.basic_ack(delivery_tag=method.delivery_tag)
    ch.stop_consuming()


channel.basic_consume(queue=queue, on_message_callback=callback)
channel.start_consuming()
channel.queue_delete(queue)
connection.close()
