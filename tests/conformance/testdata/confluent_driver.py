"""Runs one task with confluent-kafka: {"op": ..., "bootstrap": ...} on stdin, the answer as JSON on stdout."""
import base64
import json
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType


def enc(b):
    return None if b is None else base64.b64encode(b).decode()


def dec(s):
    return None if s is None else base64.b64decode(s)


def produce(task):
    for job in task["jobs"]:
        p = Producer({"bootstrap.servers": task["bootstrap"], "compression.type": job["codec"], "linger.ms": 50, "enable.idempotence": True})
        failed = []
        for r in job["records"]:
            headers = [(h["k"], dec(h["v"])) for h in r["h"] or []]
            p.produce(job["topic"], key=dec(r["k"]), value=dec(r["v"]), headers=headers, partition=0, timestamp=r["t"],
                      on_delivery=lambda err, msg: err and failed.append(str(err)))
        left = p.flush(20)
        if failed or left:
            raise SystemExit(f"{job['topic']}: {left} records left, errors {failed}")


def consumer(task):
    """assign() needs no coordinator, but the library wants a group id."""
    return Consumer({"bootstrap.servers": task["bootstrap"], "group.id": "unused", "enable.auto.commit": False, "check.crcs": True, "enable.partition.eof": False})


def consume(task):
    out = []
    for job in task["jobs"]:
        c = consumer(task)
        c.assign([TopicPartition(job["topic"], 0, 0)])
        got, end = [], time.time() + 120
        while len(got) < job["count"] and time.time() < end:
            for r in c.consume(job["count"] - len(got), 5):
                if r.error():
                    raise KafkaException(r.error())
                got.append({"o": r.offset(), "t": r.timestamp()[1], "k": enc(r.key()), "v": enc(r.value()),
                            "h": [{"k": k, "v": enc(v)} for k, v in r.headers() or []]})
        c.close()
        out.append(got)
    return out


def member(task, i, protocol):
    conf = {"bootstrap.servers": task["bootstrap"], "group.id": task["group"], "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "client.id": f"confluent-{i}", "group.protocol": protocol}
    if protocol == "classic":
        conf |= {"session.timeout.ms": 10000, "heartbeat.interval.ms": 300, "partition.assignment.strategy": "cooperative-sticky"}
    c = Consumer(conf)
    c.subscribe([task["topic"]])
    return c


# Of a commit while the group rebalances: what was read is committed afterwards. _NO_OFFSET is of a member that has read nothing yet.
UNDER_WAY = {KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.STALE_MEMBER_EPOCH, KafkaError._NO_OFFSET}


def group(task):
    """Two members of one group read count records of a topic and leave; the offsets that are committed then."""
    made = [member(task, i, task.get("protocol", "classic")) for i in range(2)]
    tps = [TopicPartition(task["topic"], p) for p in range(3)]
    got, busy, offsets, end = 0, set(), 0, time.time() + 120
    while (len(busy) < 2 or offsets < task["count"]) and time.time() < end:
        for i, c in enumerate(made):
            found = c.consume(500, 0.1)
            for r in found:
                if r.error():
                    raise KafkaException(r.error())
            got += len(found)
            if c.assignment():
                busy.add(i)
                try:
                    c.commit(asynchronous=False)
                except KafkaException as e:
                    if e.args[0].code() not in UNDER_WAY:
                        raise
        if got >= task["count"]:
            offsets = sum(tp.offset for tp in made[0].committed(tps, timeout=60) if tp.offset > 0)
    for c in made:
        c.close()
    return {"count": got, "members": len(busy), "offsets": offsets}


def transactions(task):
    """Copies a topic in transactions with the group's offsets, every fourth one aborted, and then has the producer fenced."""
    conf = {"bootstrap.servers": task["bootstrap"], "transactional.id": task["id"], "transaction.timeout.ms": 60000}
    p = Producer(conf)
    p.init_transactions(60)
    c = Consumer({"bootstrap.servers": task["bootstrap"], "group.id": task["id"], "auto.offset.reset": "earliest", "enable.auto.commit": False,
                  "isolation.level": "read_committed"})
    c.subscribe([task["from"]])
    done, rounds, end = 0, 0, time.time() + 120
    while done < task["count"] and time.time() < end:
        found = [r for r in c.consume(50, 1) if not r.error()]
        if not found:
            continue
        p.begin_transaction()
        for r in found:
            p.produce(task["to"], value=r.value())
        p.send_offsets_to_transaction(c.position(c.assignment()), c.consumer_group_metadata(), 60)
        rounds += 1
        if rounds % 4 == 0:
            p.abort_transaction(60)
            for tp in c.committed(c.assignment(), 60):
                c.seek(TopicPartition(tp.topic, tp.partition, max(tp.offset, 0)))
        else:
            p.commit_transaction(60)
            done += len(found)
    c.close()
    p.begin_transaction()
    p.produce(task["to"], value=b"zombie")
    p.flush(60)
    Producer(conf).init_transactions(60)
    try:
        p.commit_transaction(60)
        fenced = "committed"
    except KafkaException as e:
        fenced = e.args[0].name()
    r = Consumer({"bootstrap.servers": task["bootstrap"], "group.id": "check", "isolation.level": "read_committed", "auto.offset.reset": "earliest"})
    r.subscribe([task["to"]])
    got, end = [], time.time() + 120
    while len(got) < task["count"] and time.time() < end:
        got += [m.value().decode() for m in r.consume(500, 1) if not m.error()]
    got += [m.value().decode() for m in r.consume(10, 1) if not m.error()]
    r.close()
    return {"values": got, "fenced": fenced}


def migrate(task):
    """A member of each protocol in one group, the new one for a time only: how many partitions each has, step by step."""
    def until(done):
        end = time.time() + 120
        while time.time() < end:
            for c in made:
                c.consume(100, 0.05)
            now = [len(c.assignment()) for c in made]
            if done(now):
                return now
        return now
    made = [member(task, 0, "classic")]
    out = [until(lambda n: n == [3])]
    made.append(member(task, 1, "consumer"))
    out.append(until(lambda n: sum(n) == 3 and min(n) > 0))
    made.pop().close()
    out.append(until(lambda n: n == [3]))
    made[0].close()
    return out


def lookup(task):
    c = consumer(task)
    tp = TopicPartition(task["topic"], 0)
    begin, end = c.get_watermark_offsets(tp, timeout=60)
    at = c.offsets_for_times([TopicPartition(task["topic"], 0, task["ms"])], timeout=60)[0].offset
    parts = sorted(c.list_topics(task["topic"], timeout=60).topics[task["topic"]].partitions)
    c.close()
    return {"begin": begin, "end": end, "at": at, "partitions": parts}


def admin(task):
    a = AdminClient({"bootstrap.servers": task["bootstrap"]})
    out = []
    for name, *args in task["steps"]:
        try:
            out.append(steps[name](a, *args))
        except KafkaException as e:
            out.append("error " + e.args[0].name())
    return out


steps = {}


def step(fn):
    steps[fn.__name__] = fn
    return fn


def one(futures):
    (f,) = futures.values()
    return f.result(timeout=60)


@step
def create(a, name, partitions, configs):
    one(a.create_topics([NewTopic(name, partitions, 1, config=configs)]))
    return "ok"


@step
def topics(a):
    return sorted(t for t in a.list_topics(timeout=60).topics if t != "__consumer_offsets")  # a consumer with a group has looked for its coordinator


@step
def partitions(a, name, count):
    one(a.create_partitions([NewPartitions(name, count)]))
    return "ok"


@step
def count(a, name):
    from confluent_kafka import TopicCollection
    return len(one(a.describe_topics(TopicCollection([name]))).partitions)


@step
def topic_id(a, name):
    from confluent_kafka import TopicCollection
    return str(one(a.describe_topics(TopicCollection([name]))).topic_id)


@step
def alter(a, name, configs):
    r = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[
        ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in configs.items()])
    one(a.incremental_alter_configs([r]))
    return "ok"


@step
def config(a, name, key):
    return one(a.describe_configs([ConfigResource(ResourceType.TOPIC, name)]))[key].value


@step
def delete_records(a, name, before):
    return one(a.delete_records([TopicPartition(name, 0, before)])).low_watermark


@step
def offsets(a, name):
    out = []
    for spec in [OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.max_timestamp()]:
        out.append(one(a.list_offsets({TopicPartition(name, 0): spec})).offset)
    return out


@step
def delete(a, name):
    one(a.delete_topics([name]))
    return "ok"


@step
def cluster(a):
    found = a.describe_cluster().result(timeout=60)
    return [len(found.nodes), found.controller.id]


task = json.load(sys.stdin)
json.dump({"produce": produce, "consume": consume, "lookup": lookup, "group": group, "migrate": migrate, "transactions": transactions, "admin": admin}[task["op"]](task), sys.stdout)
