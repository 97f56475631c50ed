"""The first program of the tutorial; with `durable`, its message must outlive the broker."""

import os
import sys

import pika

durable = "durable" in sys.argv[1:]
url = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost:5672/%2F")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
if durable:
    channel.confirm_delivery()
queue = "task_queue" if durable else "hello"
channel.queue_declare(queue=queue, durable=durable)
channel.basic_publish(exchange="", routing_key=queue, body="Hello World!",
                      properties=pika.BasicProperties(delivery_mode=2 if durable else 1))
print(" [x] Sent 'Hello World!'")
connection.close()
