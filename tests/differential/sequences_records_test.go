package differential

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// allSequences is every sequence.
func allSequences() (all []sequence) {
	for _, part := range [][]sequence{produceSequences(), fetchSequences(), offsetSequences(), metadataSequences(), topicSequences(), configSequences(), clusterSequences(),
		commitSequences(), memberSequences(), groupSequences(), consumerSequences(), transactionSequences(), adminSequences()} {
		all = append(all, part...)
	}
	return all
}

func produceSequences() (out []sequence) {
	add := func(from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: 0, name: name, from: from, run: run})
	}
	end := func(x *exchange, topic string) { x.ask(offsets(-1, at{topic, 0})) }
	one := func(name string, acks int16, records func() []byte) {
		add(3, name, func(x *exchange) {
			topic := x.topic("a", 1)
			x.ask(x.produce(acks, records(), at{topic, 0}))
			end(x, topic)
		})
	}
	out = append(out, sequence{key: 0, name: "versions of Kafka 0.8 to 0.10", to: 2, run: func(x *exchange) {
		x.ask(x.produce(1, batch("x"), at{x.topic("a", 1), 0}))
	}})
	one("a batch", -1, func() []byte { return batch("x", "y") })
	add(3, "acks of the leader", func(x *exchange) {
		topic := x.topic("a", 1)
		x.ask(x.produce(1, batch("x", "y"), at{topic, 0}))
		x.until("the records", func() bool { // Lagoon shows records when they are durable
			return call[*kmsg.ListOffsetsResponse](x, offsets(-1, at{topic, 0})).Topics[0].Partitions[0].Offset == 2
		})
		end(x, topic)
	})
	one("acks 2", 2, func() []byte { return batch("x") })
	one("acks -2", -2, func() []byte { return batch("x") })
	one("no bytes", -1, func() []byte { return []byte{} })
	one("a flipped bit", -1, func() []byte { b := batch("x"); b[len(b)-1] ^= 1; return b })
	one("magic 0", -1, func() []byte { b := batch("x"); b[16] = 0; return b })
	one("magic 1", -1, func() []byte { b := batch("x"); b[16] = 1; return b })
	one("magic 3", -1, func() []byte { b := batch("x"); b[16] = 3; return b })
	one("two batches", -1, func() []byte { return append(batch("x"), batch("y")...) })
	one("a batch cut off", -1, func() []byte { b := batch("x", "y"); return b[:len(b)-3] })
	one("bytes behind the batch", -1, func() []byte { return append(batch("x"), 1, 2, 3) })
	one("a length of 2 GiB", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31-1) }) })
	one("a negative length", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 1<<31) }) })
	one("a count of zero", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 0) }) })
	one("a negative count", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 1<<32-1) }) })
	one("a count of a billion", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint32(b[57:], 1e9) }) })
	one("a last offset that is not count - 1", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint32(b[23:], 7) }) })
	one("a control batch", -1, func() []byte { return changed(func(b []byte) { b[22] |= 0x20 }) })
	one("a codec nobody knows", -1, func() []byte { return changed(func(b []byte) { b[22] |= 5 }) })
	one("a producer id without a sequence", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint64(b[43:], 9) }) })
	one("text", -1, func() []byte { return []byte(strings.Repeat("no batch at all ", 20)) })
	one("a base offset of its own", -1, func() []byte { return changed(func(b []byte) { binary.BigEndian.PutUint64(b, 42) }) })
	one("gzip", -1, func() []byte { return gzipped("x", "y") })
	one("more than max.message.bytes", -1, func() []byte { return batch(strings.Repeat("x", 2<<20)) })
	out = append(out, sequence{key: 0, name: "zstd before it was there", from: 3, to: 6, run: func(x *exchange) {
		x.ask(x.produce(-1, changed(func(b []byte) { b[22] |= 4 }), at{x.topic("a", 1), 0}))
	}})
	add(3, "no acks", func(x *exchange) {
		topic := x.topic("a", 1)
		x.on(0).send(x.produce(0, batch("x", "y"), at{topic, 0}))
		x.ask(x.produce(1, batch("z"), at{topic, 0}))
	})
	add(3, "no acks, an error", func(x *exchange) {
		x.topic("a", 1)
		req := x.produce(0, batch("x"), at{x.name("a"), 7})
		x.on(0).send(req)
		x.on(0).take(req)
	})
	add(3, "nowhere", func(x *exchange) { x.ask(x.produce(-1, nil)) })
	add(3, "a topic without partitions", func(x *exchange) {
		req := x.produce(-1, nil, at{x.topic("a", 1), 0})
		req.Topics[0].Partitions = nil
		x.ask(req)
	})
	add(3, "unknown topic, unknown partition", func(x *exchange) {
		topic := x.topic("a", 2)
		x.ask(x.produce(-1, batch("x"), at{topic, 0}, at{topic, 2}, at{topic, -1}))
		req := x.produce(-1, batch("x"), at{x.name("absent"), 0})
		if x.version >= 13 {
			req.Topics[0].TopicID = [16]byte{1, 2, 3}
		}
		x.ask(req)
		req = x.produce(-1, batch("x"), at{x.name("absent"), 0})
		x.ask(req)
		x.ask(x.produce(-1, batch("x"), at{topic, 0}, at{topic, 1}, at{x.name("absent"), 0}))
	})
	add(3, "a partition twice", func(x *exchange) {
		topic := x.topic("a", 1)
		x.ask(x.produce(-1, batch("x"), at{topic, 0}, at{topic, 0}))
		end(x, topic)
	})
	out = append(out, sequence{key: 0, name: "names that are none", from: 3, to: 12, run: func(x *exchange) {
		for _, name := range []string{"", "a/b", "..", strings.Repeat("x", 250)} {
			x.ask(x.produce(-1, batch("x"), at{name, 0}))
		}
	}})
	add(3, "an internal topic", func(x *exchange) { x.ask(x.produce(-1, batch("x"), at{"__consumer_offsets", 0})) })
	add(3, "null keys where records are compacted", func(x *exchange) {
		topic := x.topic("a", 1, "cleanup.policy", "compact")
		x.ask(x.produce(-1, batchOf(entry{key: []byte("k"), value: []byte("v")}, entry{value: []byte("v")}, entry{}), at{topic, 0}))
		x.ask(x.produce(-1, batchOf(entry{key: []byte("k"), value: []byte("v")}, entry{key: []byte("k")}), at{topic, 0}))
		end(x, topic)
	})
	add(3, "times out of range", func(x *exchange) {
		topic := x.topic("a", 1, "message.timestamp.before.max.ms", "1000")
		x.ask(x.produce(-1, batch("old"), at{topic, 0}))
		later := x.topic("b", 1, "message.timestamp.after.max.ms", "1000")
		x.ask(x.produce(-1, batchOf(entry{value: []byte("v"), ms: 10 * 365 * 86_400_000}), at{later, 0}))
	})
	add(3, "the broker's time", func(x *exchange) {
		topic := x.topic("a", 1, "message.timestamp.type", "LogAppendTime")
		x.ask(x.produce(-1, batch("x", "y"), at{topic, 0}))
		x.ask(x.fetch(0, at{topic, 0}))
	})
	add(3, "a topic's own max.message.bytes", func(x *exchange) {
		topic := x.topic("a", 1, "max.message.bytes", "100")
		x.ask(x.produce(-1, batch("x"), at{topic, 0}))
		x.ask(x.produce(-1, batch(strings.Repeat("x", 100)), at{topic, 0}))
	})
	add(3, "a batch larger than a segment", func(x *exchange) {
		topic := x.topic("a", 1, "segment.bytes", "1048576", "max.message.bytes", "3000000")
		x.ask(x.produce(-1, batch(strings.Repeat("x", 2<<20)), at{topic, 0}))
		x.ask(x.produce(-1, batch("x"), at{topic, 0}))
		end(x, topic)
	})
	add(3, "idempotent: in order, twice, with a gap", func(x *exchange) {
		topic, p := x.topic("a", 1), x.producer()
		for _, sequence := range []int32{0, 2, 2, 0, 6, 4, -1} {
			x.ask(x.produce(-1, by(batch("x", "y"), p, 0, sequence), at{topic, 0}))
		}
		end(x, topic)
	})
	add(3, "idempotent: epochs", func(x *exchange) {
		topic, p := x.topic("a", 1), x.producer()
		for _, c := range []struct {
			epoch    int16
			sequence int32
		}{{1, 0}, {0, 2}, {2, 5}, {2, 0}, {2, 2}, {1, 2}} {
			x.ask(x.produce(-1, by(batch("x", "y"), p, c.epoch, c.sequence), at{topic, 0}))
		}
		end(x, topic)
	})
	add(3, "idempotent: a producer that nobody knows", func(x *exchange) {
		topic, p := x.topic("a", 1), x.producer()
		x.ask(x.produce(-1, by(batch("x"), p, 0, 5), at{topic, 0}))
		x.ask(x.produce(-1, by(batch("x"), p+1_000_000, 0, 0), at{topic, 0}))
		end(x, topic)
	})
	add(3, "idempotent: sequences wrap", func(x *exchange) {
		topic, p := x.topic("a", 1), x.producer()
		x.ask(x.produce(-1, by(batch("x", "y"), p, 0, 1<<31-3), at{topic, 0}))
		x.ask(x.produce(-1, by(batch("x", "y"), p, 0, 1<<31-1), at{topic, 0}))
		x.ask(x.produce(-1, by(batch("x", "y"), p, 0, 1), at{topic, 0}))
	})
	add(3, "what was written is read", func(x *exchange) {
		topic := x.topic("a", 1)
		x.ask(x.produce(-1, batch("x", "y"), at{topic, 0}))
		x.ask(x.produce(-1, gzipped("z"), at{topic, 0}))
		x.ask(x.fetch(0, at{topic, 0}))
	})
	return out
}

// producer is a new producer id.
func (x *exchange) producer() int64 {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.ProducerID, req.ProducerEpoch = -1, -1
	resp := call[*kmsg.InitProducerIDResponse](x, req)
	if resp.ErrorCode != 0 {
		x.fail("set-up: producer id: code %d", resp.ErrorCode)
	}
	return resp.ProducerID
}

// gzipped is a compressed batch.
func gzipped(values ...string) []byte {
	plain := batch(values...)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(plain[61:]) // a Buffer takes everything
	_ = w.Close()
	b := append(plain[:61:61], packed.Bytes()...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[22] |= 1
	return sealed(b)
}

func fetchSequences() (out []sequence) {
	add := func(from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: 1, name: name, from: from, run: run})
	}
	// Five records in three batches, at offsets 0-1, 2 and 3-4: data is a topic of the sequence's own, still one that nobody changes.
	write := func(x *exchange, topic string) {
		x.write(topic, 0, "one", "two")
		x.write(topic, 0, "three")
		x.write(topic, 0, "four", "five")
	}
	data := func(x *exchange) string {
		topic := x.topic("a", 2)
		write(x, topic)
		return topic
	}
	still := func(x *exchange) string {
		return x.shared("fetch", 2, func(topic string) { write(x, topic) })
	}
	for _, offset := range []int64{0, 1, 2, 4, 5, 6, 1 << 40, -1, -2} {
		add(0, fmt.Sprintf("from offset %d", offset), func(x *exchange) { x.ask(x.fetch(offset, at{still(x), 0})) })
	}
	add(0, "an empty partition", func(x *exchange) { x.ask(x.fetch(0, at{still(x), 1})) })
	add(0, "nothing", func(x *exchange) { x.ask(x.fetch(0)) })
	add(0, "unknown topic, unknown partition", func(x *exchange) {
		topic := still(x)
		x.ask(x.fetch(0, at{topic, 0}, at{topic, 2}, at{topic, -1}))
		x.ask(x.fetch(0, at{x.name("absent"), 0}))
		req := x.fetch(0, at{topic, 0}, at{x.name("absent"), 0})
		req.Topics[1].TopicID = [16]byte{1, 2, 3}
		x.ask(req)
	})
	add(0, "a partition twice", func(x *exchange) {
		topic := still(x)
		x.ask(x.fetch(0, at{topic, 0}, at{topic, 0}))
	})
	for _, limit := range []int32{1, 0, -1, 80} {
		add(0, fmt.Sprintf("at most %d bytes of a partition", limit), func(x *exchange) {
			req := x.fetch(0, at{data(x), 0})
			req.Topics[0].Partitions[0].PartitionMaxBytes = limit
			x.ask(req)
		})
		add(0, fmt.Sprintf("at most %d bytes in all", limit), func(x *exchange) {
			topic := data(x)
			x.write(topic, 1, "six")
			req := x.fetch(0, at{topic, 0}, at{topic, 1})
			req.MaxBytes = limit
			x.ask(req)
		})
	}
	add(0, "more bytes than there are", func(x *exchange) {
		req := x.fetch(0, at{data(x), 0})
		req.MinBytes, req.MaxWaitMillis = 1<<20, 20
		x.ask(req)
		req = x.fetch(5, at{x.name("a"), 0})
		req.MinBytes, req.MaxWaitMillis = 1, 20
		x.ask(req)
	})
	add(0, "woken by records", func(x *exchange) {
		topic := data(x)
		req := x.fetch(5, at{topic, 0})
		req.MinBytes, req.MaxWaitMillis = 1, 10_000
		x.on(0).send(req)
		x.write(topic, 0, "six")
		woken, ok := x.on(0).wait(req).(*kmsg.FetchResponse) // its high watermark may be the one before, or not
		if !ok || len(woken.Topics) != 1 || len(woken.Topics[0].Partitions[0].RecordBatches) == 0 {
			x.fail("woken without records: %+v", woken)
		}
		x.ask(x.fetch(5, at{topic, 0}))
	})
	add(0, "read committed", func(x *exchange) {
		req := x.fetch(0, at{still(x), 0})
		req.IsolationLevel = 1
		x.ask(req)
	})
	add(0, "an isolation that there is not", func(x *exchange) {
		req := x.fetch(0, at{still(x), 0})
		req.IsolationLevel = 7
		x.ask(req)
	})
	for _, epoch := range []int32{0, 1, 100} {
		add(9, fmt.Sprintf("leader epoch %d", epoch), func(x *exchange) {
			req := x.fetch(0, at{still(x), 0})
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
			x.ask(req)
		})
	}
	add(12, "last fetched epoch", func(x *exchange) {
		topic := still(x)
		for _, epoch := range []int32{0, 3} {
			req := x.fetch(3, at{topic, 0})
			req.Topics[0].Partitions[0].LastFetchedEpoch = epoch
			x.ask(req)
		}
	})
	add(0, "after records were deleted", func(x *exchange) {
		topic := data(x)
		x.deleteBefore(topic, 2)
		x.ask(x.fetch(1, at{topic, 0}))
		x.ask(x.fetch(2, at{topic, 0}))
	})
	add(7, "a session", func(x *exchange) {
		topic := data(x)
		first := x.fetch(0, at{topic, 0}, at{topic, 1})
		first.SessionEpoch = 0
		resp, ok := x.ask(first).(*kmsg.FetchResponse)
		if !ok || resp.SessionID == 0 {
			return
		}
		next := func(epoch int32, change func(req *kmsg.FetchRequest)) {
			req := x.fetch(5)
			req.SessionID, req.SessionEpoch = resp.SessionID, epoch
			change(req)
			x.ask(req)
		}
		forward := func(req *kmsg.FetchRequest) { req.Topics = x.fetch(5, at{topic, 0}).Topics }
		next(1, forward)
		x.write(topic, 1, "six")
		next(2, func(*kmsg.FetchRequest) {})
		next(3, func(req *kmsg.FetchRequest) {
			f := kmsg.NewFetchRequestForgottenTopic()
			f.Topic, f.Partitions = topic, []int32{1}
			f.TopicID = x.id(topic)
			req.ForgottenTopics = append(req.ForgottenTopics, f)
		})
		next(7, func(*kmsg.FetchRequest) {})
		next(-1, func(*kmsg.FetchRequest) {}) // ends it
		next(4, func(*kmsg.FetchRequest) {})
	})
	add(7, "a session that nobody opened", func(x *exchange) {
		req := x.fetch(0, at{still(x), 0})
		req.SessionID, req.SessionEpoch = 12345, 1
		x.ask(req)
		req.SessionID, req.SessionEpoch = 0, 5
		x.ask(req)
		req.SessionID, req.SessionEpoch = 12345, 0
		x.ask(req)
	})
	add(11, "a rack", func(x *exchange) {
		req := x.fetch(0, at{still(x), 0})
		req.Rack = "elsewhere"
		x.ask(req)
	})
	return out
}

// deleteBefore deletes the records of partition 0 before an offset.
func (x *exchange) deleteBefore(topic string, offset int64) {
	if p := call[*kmsg.DeleteRecordsResponse](x, deleteRecords(offset, at{topic, 0})).Topics[0].Partitions[0]; p.ErrorCode != 0 {
		x.fail("set-up: delete records: code %d", p.ErrorCode)
	}
}

func deleteRecords(offset int64, of ...at) *kmsg.DeleteRecordsRequest {
	req := kmsg.NewPtrDeleteRecordsRequest()
	req.TimeoutMillis = 5000
	for _, of := range of {
		rp := kmsg.NewDeleteRecordsRequestTopicPartition()
		rp.Partition, rp.Offset = of.partition, offset
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == of.topic {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, rp)
			continue
		}
		rt := kmsg.NewDeleteRecordsRequestTopic()
		rt.Topic, rt.Partitions = of.topic, append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func offsetSequences() (out []sequence) {
	add := func(key, from int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, run: run})
	}
	write := func(x *exchange, topic string) {
		for i, v := range []string{"one", "two", "three"} {
			x.append(topic, 0, batchOf(entry{value: []byte(v), ms: int64(i) * 1000}, entry{value: []byte(v), ms: int64(i)*1000 + 500}))
		}
	}
	data := func(x *exchange) string {
		topic := x.topic("a", 2)
		write(x, topic)
		return topic
	}
	still := func(x *exchange) string {
		return x.shared("times", 2, func(topic string) { write(x, topic) })
	}
	for _, s := range []struct {
		from      int16
		timestamp int64
	}{{1, -1}, {1, -2}, {7, -3}, {8, -4}, {9, -5}, {11, -6}, {1, -7}, {1, -100}, {1, 0}, {1, 1<<63 - 1}} {
		add(2, s.from, fmt.Sprintf("time %d", s.timestamp), func(x *exchange) {
			topic := still(x)
			x.ask(offsets(s.timestamp, at{topic, 0}))
			x.ask(offsets(s.timestamp, at{topic, 1})) // empty
		})
	}
	for _, ms := range []int64{0, 499, 1000, 2500, 2501} {
		add(2, 1, fmt.Sprintf("%d ms after the first", ms), func(x *exchange) { x.ask(offsets(firstMs+ms, at{still(x), 0})) })
	}
	for _, special := range []int64{-3, -4, -5, -6} {
		out = append(out, sequence{key: 2, name: fmt.Sprintf("time %d before it was there", special), to: 6, run: func(x *exchange) { x.ask(offsets(special, at{still(x), 0})) }})
	}
	add(2, 0, "unknown topic, unknown partition", func(x *exchange) {
		topic := still(x)
		x.ask(offsets(-1, at{topic, 0}, at{topic, 7}, at{topic, -1}, at{x.name("absent"), 0}))
	})
	add(2, 0, "a partition twice", func(x *exchange) { topic := still(x); x.ask(offsets(-1, at{topic, 0}, at{topic, 0})) })
	add(2, 0, "nothing", func(x *exchange) { x.ask(offsets(-1)) })
	add(2, 0, "names that are none", func(x *exchange) { x.ask(offsets(-1, at{"", 0}, at{"a/b", 0})) })
	add(2, 4, "leader epochs", func(x *exchange) {
		topic := still(x)
		for _, epoch := range []int32{0, 1, 5} {
			req := offsets(-1, at{topic, 0})
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
			x.ask(req)
		}
	})
	add(2, 2, "read committed", func(x *exchange) {
		req := offsets(-1, at{still(x), 0})
		req.IsolationLevel = 1
		x.ask(req)
	})
	add(2, 0, "after records were deleted", func(x *exchange) {
		topic := data(x)
		x.deleteBefore(topic, 3)
		for _, ts := range []int64{-2, -1, firstMs, firstMs + 1000} {
			x.ask(offsets(ts, at{topic, 0}))
		}
	})

	add(21, 0, "to an offset, to the end", func(x *exchange) {
		topic := data(x)
		x.ask(deleteRecords(2, at{topic, 0}))
		x.ask(deleteRecords(1, at{topic, 0})) // below the start
		x.ask(deleteRecords(-1, at{topic, 0}))
		x.ask(offsets(-2, at{topic, 0}))
	})
	add(21, 0, "beyond the end, negative", func(x *exchange) {
		topic := data(x)
		x.ask(deleteRecords(7, at{topic, 0}))
		x.ask(deleteRecords(-2, at{topic, 0}))
		x.ask(deleteRecords(0, at{topic, 1}))
		x.ask(deleteRecords(-1, at{topic, 1}))
	})
	add(21, 0, "unknown topic, unknown partition", func(x *exchange) {
		topic := data(x)
		x.ask(deleteRecords(1, at{topic, 0}, at{x.name("absent"), 0}))
		x.ask(deleteRecords(1, at{topic, 9}))
	})
	add(21, 0, "nothing", func(x *exchange) { x.ask(deleteRecords(1)) })
	add(21, 0, "a partition twice", func(x *exchange) { topic := data(x); x.ask(deleteRecords(1, at{topic, 0}, at{topic, 0})) })
	add(21, 0, "a compacted topic", func(x *exchange) {
		topic := x.topic("a", 1, "cleanup.policy", "compact")
		x.append(topic, 0, batchOf(entry{key: []byte("k"), value: []byte("v")}))
		x.ask(deleteRecords(1, at{topic, 0}))
	})
	add(21, 0, "an internal topic", func(x *exchange) { x.ask(deleteRecords(0, at{"__consumer_offsets", 0})) })

	epochs := func(of at, current, epoch int32) *kmsg.OffsetForLeaderEpochRequest {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.ReplicaID = -1
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = of.partition, current, epoch
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic, rt.Partitions = of.topic, append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return req
	}
	for _, e := range []struct{ current, epoch int32 }{{-1, 0}, {0, 0}, {-1, -1}, {-1, 1}, {-1, 100}, {5, 0}, {-1, -5}} {
		add(23, 0, fmt.Sprintf("epoch %d, current %d", e.epoch, e.current), func(x *exchange) { x.ask(epochs(at{still(x), 0}, e.current, e.epoch)) })
	}
	add(23, 0, "an empty log", func(x *exchange) { x.ask(epochs(at{still(x), 1}, -1, 0)) })
	add(23, 0, "unknown topic, unknown partition", func(x *exchange) {
		x.ask(epochs(at{still(x), 5}, -1, 0))
		x.ask(epochs(at{x.name("absent"), 0}, -1, 0))
	})
	add(23, 0, "nothing", func(x *exchange) {
		req := epochs(at{}, 0, 0)
		req.Topics = nil
		x.ask(req)
	})

	ids := func(fill func(req *kmsg.InitProducerIDRequest)) *kmsg.InitProducerIDRequest {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.ProducerID, req.ProducerEpoch, req.TransactionTimeoutMillis = -1, -1, 60_000
		fill(req)
		return req
	}
	add(22, 0, "a producer id, and another", func(x *exchange) {
		x.ask(ids(func(*kmsg.InitProducerIDRequest) {}))
		x.ask(ids(func(*kmsg.InitProducerIDRequest) {}))
	})
	add(22, 0, "an empty transactional id", func(x *exchange) { x.ask(ids(func(r *kmsg.InitProducerIDRequest) { r.TransactionalID = text("") })) })
	add(22, 3, "an id that is given, without a transaction", func(x *exchange) {
		p := x.producer()
		x.ask(ids(func(r *kmsg.InitProducerIDRequest) { r.ProducerID, r.ProducerEpoch = p, 0 }))
		x.ask(ids(func(r *kmsg.InitProducerIDRequest) { r.ProducerID, r.ProducerEpoch = p, -1 }))
		x.ask(ids(func(r *kmsg.InitProducerIDRequest) { r.ProducerID, r.ProducerEpoch = -1, 3 }))
		x.ask(ids(func(r *kmsg.InitProducerIDRequest) { r.ProducerID, r.ProducerEpoch = -5, -5 }))
	})
	return out
}
