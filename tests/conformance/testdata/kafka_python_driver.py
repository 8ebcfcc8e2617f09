"""Runs one task with kafka-python: {"op": ..., "bootstrap": ...} on stdin, the answer as JSON on stdout."""
import base64
import json
import sys
import threading
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError


def enc(b):
    return None if b is None else base64.b64encode(b).decode()


def dec(s):
    return None if s is None else base64.b64decode(s)


def produce(task):
    for job in task["jobs"]:
        codec = None if job["codec"] == "none" else job["codec"]
        p = KafkaProducer(bootstrap_servers=task["bootstrap"], compression_type=codec, linger_ms=20, acks="all", enable_idempotence=True)
        sent = []
        for r in job["records"]:
            headers = [(h["k"], dec(h["v"])) for h in r["h"] or []]
            sent.append(p.send(job["topic"], key=dec(r["k"]), value=dec(r["v"]), headers=headers, partition=0, timestamp_ms=r["t"]))
        p.flush(20)
        for i, f in enumerate(sent):
            at = f.get(timeout=60).offset
            if at != i:
                raise SystemExit(f"{job['topic']}: record {i} was given offset {at}")
        p.close()


def consume(task):
    out = []
    for job in task["jobs"]:
        tp = TopicPartition(job["topic"], 0)
        c = KafkaConsumer(bootstrap_servers=task["bootstrap"], group_id=None, check_crcs=True)
        c.assign([tp])
        c.seek_to_beginning(tp)
        got, end = [], time.time() + 120
        while len(got) < job["count"] and time.time() < end:
            for r in c.poll(timeout_ms=500).get(tp, []):
                got.append({"o": r.offset, "t": r.timestamp, "k": enc(r.key), "v": enc(r.value), "h": [{"k": k, "v": enc(v)} for k, v in r.headers]})
        c.close()
        out.append(got)
    return out


def group(task):
    """Two members of one group read count records of a topic and leave; the offsets that are committed then."""
    made = [KafkaConsumer(task["topic"], bootstrap_servers=task["bootstrap"], group_id=task["group"], auto_offset_reset="earliest", enable_auto_commit=False,
                          session_timeout_ms=10000, heartbeat_interval_ms=300, client_id=f"python-{i}") for i in range(2)]
    # A leader that has no metadata yet when it is to assign joins again at once, and kafka-python 3.0.12 may lose the second answer:
    # that member then neither polls nor beats. It is the client's race, and shows where groups form without delay.
    for c in made:
        c.partitions_for_topic(task["topic"])
    counts, busy, end = [0, 0], set(), time.time() + 120

    def done(c):
        """Both have taken part, and all is read and committed: a commit that failed in a rebalance came again."""
        return len(busy) == 2 and sum(counts) >= task["count"] and sum(c.committed(TopicPartition(task["topic"], p)) or 0 for p in range(3)) >= task["count"]

    def member(i):
        while not done(made[i]) and time.time() < end:
            counts[i] += sum(len(rs) for rs in made[i].poll(timeout_ms=100).values())
            if made[i].assignment():
                busy.add(i)
                try:
                    made[i].commit()
                except KafkaError:  # a rebalance is under way: what was read is committed afterwards
                    pass

    threads = [threading.Thread(target=member, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    got = sum(counts)
    for c in made:
        c.close()
    a = KafkaAdminClient(bootstrap_servers=task["bootstrap"])
    offsets = a.list_group_offsets(task["group"])
    offsets = offsets.get(task["group"], offsets)
    out = {"count": got, "members": len(busy), "offsets": sum(o.offset for o in offsets.values())}
    a.close()
    return out


def lookup(task):
    c = KafkaConsumer(bootstrap_servers=task["bootstrap"], group_id=None)
    tp = TopicPartition(task["topic"], 0)
    found = c.offsets_for_times({tp: task["ms"]})[tp]
    out = {"begin": c.beginning_offsets([tp])[tp], "end": c.end_offsets([tp])[tp], "at": None if found is None else found.offset,
           "partitions": sorted(c.partitions_for_topic(task["topic"]))}
    c.close()
    return out


def admin(task):
    a = KafkaAdminClient(bootstrap_servers=task["bootstrap"])
    out = []
    for name, *args in task["steps"]:
        try:
            out.append(steps[name](a, *args))
        except Exception as e:  # the name of the error is the answer
            out.append("error " + type(e).__name__)
    a.close()
    return out


steps = {}


def step(fn):
    steps[fn.__name__] = fn
    return fn


@step
def create(a, name, partitions, configs):
    from kafka.admin import NewTopic
    a.create_topics([NewTopic(name, partitions, 1, topic_configs=configs)])
    return "ok"


@step
def topics(a):
    return sorted(a.list_topics())


@step
def partitions(a, name, count):
    from kafka.admin import NewPartitions
    a.create_partitions({name: NewPartitions(count)})
    return "ok"


@step
def count(a, name):
    return len(a.describe_topics([name])[0]["partitions"])


@step
def alter(a, name, configs):
    from kafka.admin import ConfigResource, ConfigResourceType
    a.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)])
    return "ok"


@step
def config(a, name, key):
    from kafka.admin import ConfigResource, ConfigResourceType
    return a.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")["topic"][name][key]["value"]


@step
def delete_records(a, name, before):
    found = a.delete_records({TopicPartition(name, 0): before})
    return found[TopicPartition(name, 0)]["low_watermark"]


@step
def delete(a, name):
    a.delete_topics([name])
    return "ok"


@step
def cluster(a):
    found = a.describe_cluster()
    return [len(found["brokers"]), found["controller_id"]]


task = json.load(sys.stdin)
json.dump({"produce": produce, "consume": consume, "lookup": lookup, "group": group, "admin": admin}[task["op"]](task), sys.stdout)
