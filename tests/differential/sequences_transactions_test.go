package differential

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// writer is a transactional producer.
type writer struct {
	id       string
	producer int64
	epoch    int16
	sequence int32
}

// begin starts, or fences and starts again, a transactional producer of this sequence.
func (x *exchange) begin(id string) *writer {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = text(id), 60_000, -1, -1
	var resp *kmsg.InitProducerIDResponse
	x.until("the end of the last transaction", func() bool {
		resp = call[*kmsg.InitProducerIDResponse](x, req)
		return resp.ErrorCode != 51 // CONCURRENT_TRANSACTIONS
	})
	if resp.ErrorCode != 0 {
		x.fail("set-up: producer %s: code %d", id, resp.ErrorCode)
	}
	return &writer{id: id, producer: resp.ProducerID, epoch: resp.ProducerEpoch}
}

func (x *exchange) addPartitions(w *writer, of ...at) *kmsg.AddPartitionsToTxnRequest {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = w.id, w.producer, w.epoch
	t := kmsg.NewAddPartitionsToTxnRequestTransaction()
	t.TransactionalID, t.ProducerID, t.ProducerEpoch = w.id, w.producer, w.epoch
	for _, of := range of {
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == of.topic {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, of.partition)
			t.Topics[n-1].Partitions = append(t.Topics[n-1].Partitions, of.partition)
			continue
		}
		req.Topics = append(req.Topics, kmsg.AddPartitionsToTxnRequestTopic{Topic: of.topic, Partitions: []int32{of.partition}})
		t.Topics = append(t.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: of.topic, Partitions: []int32{of.partition}})
	}
	req.Transactions = append(req.Transactions, t)
	return req
}

// addVersion is the version of AddPartitionsToTxn that clients send: those above are for brokers.
const addVersion = 3

// open adds a partition to the writer's transaction, as set-up.
func (x *exchange) open(w *writer, of at) {
	var code int16
	saved := x.highest
	x.highest = map[int16]int16{24: addVersion}
	defer func() { x.highest = saved }()
	x.until("the end of the last transaction", func() bool {
		code = call[*kmsg.AddPartitionsToTxnResponse](x, x.addPartitions(w, of)).Topics[0].Partitions[0].ErrorCode
		return code != 51
	})
	if code != 0 {
		x.fail("set-up: add %v to the transaction of %s: code %d", of, w.id, code)
	}
}

// records is a transactional batch, which continues the writer's sequence.
func (w *writer) records(values ...string) []byte {
	b := batch(values...)
	b[22] |= 0x10
	w.sequence += int32(len(values))
	return by(b, w.producer, w.epoch, w.sequence-int32(len(values)))
}

// produceIn asks to append in a transaction.
func (x *exchange) produceIn(w *writer, records []byte, to at) *kmsg.ProduceRequest {
	req := x.produce(-1, records, to)
	req.TransactionID = text(w.id)
	return req
}

func endTxn(w *writer, commit bool) *kmsg.EndTxnRequest {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = w.id, w.producer, w.epoch, commit
	return req
}

// appendIn appends in the first transaction protocol, as set-up.
func (x *exchange) appendIn(w *writer, to at, values ...string) {
	saved := x.highest
	x.highest = map[int16]int16{0: 11}
	defer func() { x.highest = saved }()
	req := x.produceIn(w, w.records(values...), to)
	for i := range req.Topics {
		req.Topics[i].TopicID = [16]byte{}
	}
	if p := call[*kmsg.ProduceResponse](x, req).Topics[0].Partitions[0]; p.ErrorCode != 0 {
		x.fail("set-up: produce in the transaction of %s: code %d", w.id, p.ErrorCode)
	}
}

// finish ends the writer's transaction, and returns when it has ended.
func (x *exchange) finish(w *writer, commit bool) {
	saved := x.highest
	x.highest = map[int16]int16{26: 4}
	code := call[*kmsg.EndTxnResponse](x, endTxn(w, commit)).ErrorCode
	x.highest = saved
	if code != 0 {
		x.fail("set-up: end of the transaction of %s: code %d", w.id, code)
	}
	x.completed(w.id)
}

// addOffsets makes a group part of a transaction.
func addOffsets(w *writer, group string) *kmsg.AddOffsetsToTxnRequest {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = w.id, w.producer, w.epoch, group
	return req
}

// commitIn asks to store offset 7 in a transaction.
func (x *exchange) commitIn(w *writer, group string, of at) *kmsg.TxnOffsetCommitRequest {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = w.id, group, w.producer, w.epoch
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = of.partition, 7, -1, text("note")
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic, rt.TopicID, rt.Partitions = of.topic, x.id(of.topic), append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func describeTransactions(ids ...string) *kmsg.DescribeTransactionsRequest {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = ids
	return req
}

// completed waits until the last transaction of an id has ended: until then a broker may answer CONCURRENT_TRANSACTIONS or not.
func (x *exchange) completed(id string) {
	x.until("the end of the transaction", func() bool {
		state := call[*kmsg.DescribeTransactionsResponse](x, describeTransactions(id)).TransactionStates[0].State
		return strings.HasPrefix(state, "Complete")
	})
}

// stable waits until no transaction is open in a partition.
func (x *exchange) stable(of at) {
	x.until("the last stable offset", func() bool {
		last := func(isolation int8) int64 {
			req := offsets(-1, of)
			req.IsolationLevel = isolation
			return call[*kmsg.ListOffsetsResponse](x, req).Topics[0].Partitions[0].Offset
		}
		return last(0) == last(1)
	})
}

func transactionSequences() (out []sequence) {
	add := func(key, from, to int16, name string, run func(x *exchange)) {
		out = append(out, sequence{key: key, name: name, from: from, to: to, run: run, needs: 26})
	}
	both := func(x *exchange, p at) {
		for _, isolation := range []int8{0, 1} {
			req := x.fetch(0, p)
			req.IsolationLevel = isolation
			x.ask(req)
			end := offsets(-1, p)
			end.IsolationLevel = isolation
			x.ask(end)
		}
	}

	ids := func(id string, timeout int32, producer int64, epoch int16) *kmsg.InitProducerIDRequest {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = text(id), timeout, producer, epoch
		return req
	}
	add(22, 0, 0, "transactional: epochs", func(x *exchange) {
		for range 3 {
			x.ask(ids(x.name("t"), 60_000, -1, -1))
		}
	})
	add(22, 0, 0, "transactional: timeouts", func(x *exchange) {
		for _, ms := range []int32{0, -1, 1, 900_000, 900_001} {
			x.ask(ids(x.name("t"), ms, -1, -1))
		}
	})
	add(22, 3, 0, "transactional: going on", func(x *exchange) {
		w := x.begin(x.name("t"))
		x.ask(ids(w.id, 60_000, w.producer, w.epoch))
		x.ask(ids(w.id, 60_000, w.producer, w.epoch)) // a retry
		x.ask(ids(w.id, 60_000, w.producer, 9))
		x.ask(ids(w.id, 60_000, w.producer+1_000_000, w.epoch))
	})
	add(22, 0, 0, "transactional: amid a transaction", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.open(w, p)
		x.appendIn(w, p, "x")
		x.begin(w.id) // fences and aborts
		x.stable(p)
		both(x, p)
	})

	add(24, 0, addVersion, "partitions", func(x *exchange) {
		a := x.topic("a", 2)
		w := x.begin(x.name("t"))
		x.ask(x.addPartitions(w, at{a, 0}))
		x.ask(x.addPartitions(w, at{a, 0}, at{a, 1}))
	})
	add(24, 0, addVersion, "unknown topic, unknown partition", func(x *exchange) {
		a := x.topic("a", 1)
		w := x.begin(x.name("t"))
		x.ask(x.addPartitions(w, at{a, 0}, at{a, 7}, at{x.name("absent"), 0}))
		x.ask(x.addPartitions(w, at{a, 0}))
	})
	add(24, 0, addVersion, "producers that there are not", func(x *exchange) {
		a := x.topic("a", 1)
		w := x.begin(x.name("t"))
		for _, other := range []writer{{id: x.name("absent")}, {id: ""}, {id: w.id, producer: w.producer + 1_000_000, epoch: w.epoch},
			{id: w.id, producer: w.producer, epoch: w.epoch + 1}, {id: w.id, producer: w.producer, epoch: w.epoch - 1}} {
			x.ask(x.addPartitions(&other, at{a, 0}))
		}
	})
	add(24, 0, addVersion, "nothing", func(x *exchange) { x.ask(x.addPartitions(x.begin(x.name("t")))) })

	add(25, 0, 0, "a group", func(x *exchange) {
		w := x.begin(x.name("t"))
		x.ask(addOffsets(w, x.name("g")))
		x.ask(addOffsets(w, x.name("g")))
	})
	add(25, 0, 0, "producers and groups that there are not", func(x *exchange) {
		w := x.begin(x.name("t"))
		x.ask(addOffsets(w, ""))
		for _, other := range []writer{{id: x.name("absent")}, {id: ""}, {id: w.id, producer: w.producer + 1_000_000, epoch: w.epoch}, {id: w.id, producer: w.producer, epoch: w.epoch + 1}} {
			x.ask(addOffsets(&other, x.name("g")))
		}
	})

	for _, commit := range []bool{true, false} {
		add(26, 0, 4, fmt.Sprintf("commit %v", commit), func(x *exchange) {
			p := at{x.topic("a", 1), 0}
			w := x.begin(x.name("t"))
			x.write(p.topic, 0, "before")
			x.open(w, p)
			x.appendIn(w, p, "in", "it")
			both(x, p)
			x.ask(endTxn(w, commit))
			x.completed(w.id)
			x.ask(endTxn(w, commit)) // a retry
			x.ask(endTxn(w, !commit))
			x.write(p.topic, 0, "after")
			both(x, p)
		})
		add(26, 5, 0, fmt.Sprintf("second protocol, commit %v", commit), func(x *exchange) {
			p := at{x.topic("a", 1), 0}
			w := x.begin(x.name("t"))
			x.ask(x.produceIn(w, w.records("in", "it"), p))
			both(x, p)
			resp, ok := x.ask(endTxn(w, commit)).(*kmsg.EndTxnResponse)
			x.completed(w.id)
			x.ask(endTxn(w, commit)) // a retry
			if ok {
				x.ask(endTxn(&writer{id: w.id, producer: resp.ProducerID, epoch: resp.ProducerEpoch}, !commit))
			}
			both(x, p)
		})
	}
	add(26, 5, 0, "second protocol, aborted by the broker", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.ask(x.produceIn(w, w.records("in"), p))
		x.until("the abort", func() bool { // of what is open when a client asks for the next epoch
			return call[*kmsg.InitProducerIDResponse](x, ids(w.id, 60_000, w.producer, w.epoch)).ErrorCode != 51
		})
		x.ask(endTxn(w, false)) // it has heard of that
		next := writer{id: w.id, producer: w.producer, epoch: w.epoch + 1}
		x.ask(x.produceIn(w, w.records("fenced"), p))
		x.ask(x.produceIn(&next, next.records("on"), p))
		x.ask(endTxn(&next, true))
		x.completed(w.id)
		both(x, p)
	})
	add(26, 5, 0, "second protocol, aborted for a newcomer", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.ask(x.produceIn(w, w.records("in"), p))
		x.begin(w.id)
		x.ask(describeTransactions(w.id))
		x.ask(endTxn(w, false))
		both(x, p)
	})
	add(26, 0, 0, "what was too slow", func(x *exchange) { // brokers look every 10 s
		p := at{x.topic("a", 1), 0}
		begun := call[*kmsg.InitProducerIDResponse](x, ids(x.name("t"), 3000, -1, -1))
		w := &writer{id: x.name("t"), producer: begun.ProducerID, epoch: begun.ProducerEpoch}
		x.open(w, p)
		x.appendIn(w, p, "in")
		x.completed(w.id)
		x.ask(describeTransactions(w.id))
		x.ask(endTxn(w, true))
		x.ask(endTxn(w, false))
		x.ask(endTxn(w, false)) // a retry
		x.ask(describeTransactions(w.id))
		both(x, p)
	})
	add(26, 0, 0, "nothing to end, nobody there", func(x *exchange) {
		w := x.begin(x.name("t"))
		x.ask(endTxn(w, true))
		x.ask(endTxn(w, false))
		x.until("the end of what may have been ended", func() bool { // from version 5 on, a transaction of nothing
			state := call[*kmsg.DescribeTransactionsResponse](x, describeTransactions(w.id)).TransactionStates[0].State
			return !strings.HasPrefix(state, "Prepare")
		})
		for _, other := range []writer{{id: x.name("absent")}, {id: ""}, {id: w.id, producer: w.producer + 1_000_000, epoch: w.epoch}, {id: w.id, producer: w.producer, epoch: w.epoch + 9}} {
			x.ask(endTxn(&other, true))
		}
	})

	add(0, 3, 11, "transactional without a transaction", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.ask(x.produceIn(w, w.records("x"), p))
	})
	add(0, 3, 11, "transactional in a transaction, and what is not", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.open(w, p)
		x.ask(x.produceIn(w, w.records("x"), p))
		x.ask(x.produceIn(w, w.records("y"), p))
		x.ask(x.produceIn(w, by(batch("z"), w.producer, w.epoch, w.sequence), p)) // no transactional batch
		x.ask(x.produceIn(&writer{id: x.name("absent")}, w.records("z"), p))
		both(x, p)
	})
	add(0, 3, 11, "transactional, fenced", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.open(w, p)
		x.appendIn(w, p, "x")
		next := x.begin(w.id)
		x.ask(x.produceIn(w, w.records("y"), p))
		x.open(next, p)
		x.appendIn(next, p, "z")
		x.ask(endTxn(w, true))
		x.finish(next, true)
		both(x, p)
	})
	add(1, 0, 0, "of transactions that were committed, aborted, open", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		for i, commit := range []bool{true, false, true} {
			w := x.begin(x.name(fmt.Sprint("t", i)))
			x.open(w, p)
			x.appendIn(w, p, "one", "two")
			x.finish(w, commit)
		}
		w := x.begin(x.name("open"))
		x.open(w, p)
		x.appendIn(w, p, "three")
		x.write(p.topic, 0, "behind it")
		both(x, p)
	})

	for _, commit := range []bool{true, false} {
		add(28, 0, 4, fmt.Sprintf("offsets, commit %v", commit), func(x *exchange) {
			p, g := at{x.topic("a", 1), 0}, x.name("g")
			w := x.begin(x.name("t"))
			if c := call[*kmsg.AddOffsetsToTxnResponse](x, addOffsets(w, g)).ErrorCode; c != 0 {
				x.fail("set-up: add offsets: code %d", c)
			}
			x.ask(x.commitIn(w, g, p))
			stable := x.committed(g, p)
			stable.RequireStable = true
			x.ask(stable)
			x.ask(x.committed(g, p))
			saved := x.highest
			x.highest = map[int16]int16{26: 4}
			call[*kmsg.EndTxnResponse](x, endTxn(w, commit))
			x.highest = saved
			x.until("the offsets", func() bool {
				return call[*kmsg.OffsetFetchResponse](x, stable).Groups[0].Topics[0].Partitions[0].ErrorCode == 0
			})
			x.ask(stable)
		})
	}
	add(28, 0, 4, "offsets, members and producers that there are not", func(x *exchange) {
		p, g := at{x.topic("a", 1), 0}, x.name("g")
		w := x.begin(x.name("t"))
		x.ask(x.commitIn(w, "", p))
		x.ask(x.commitIn(w, g, at{p.topic, 9}))
		req := x.commitIn(w, g, p)
		if x.version >= 3 {
			req.Generation, req.MemberID = 3, "somebody"
			x.ask(req)
		}
	})

	producers := func(of ...at) *kmsg.DescribeProducersRequest {
		req := kmsg.NewPtrDescribeProducersRequest()
		for _, of := range of {
			req.Topics = append(req.Topics, kmsg.DescribeProducersRequestTopic{Topic: of.topic, Partitions: []int32{of.partition}})
		}
		return req
	}
	add(61, 0, 0, "idempotent and transactional ones", func(x *exchange) {
		p := at{x.topic("a", 2), 0}
		id := x.producer()
		x.append(p.topic, 0, by(batch("x", "y"), id, 0, 0))
		x.ask(producers(p, at{p.topic, 1}))
		w := x.begin(x.name("t"))
		x.open(w, at{p.topic, 1})
		x.appendIn(w, at{p.topic, 1}, "x")
		x.ask(producers(at{p.topic, 1}))
		x.finish(w, true)
		x.ask(producers(at{p.topic, 1}))
	})
	add(61, 0, 0, "unknown topic, unknown partition, nothing", func(x *exchange) {
		a := x.topic("a", 1)
		x.ask(producers(at{a, 7}, at{x.name("absent"), 0}, at{"a/b", 0}))
		x.ask(producers())
	})

	add(65, 0, 0, "a transaction through its life", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.ask(describeTransactions(w.id))
		x.open(w, p)
		x.ask(describeTransactions(w.id))
		x.appendIn(w, p, "x")
		x.finish(w, true)
		x.ask(describeTransactions(w.id))
	})
	add(65, 0, 0, "unknown, nameless, nothing, twice", func(x *exchange) {
		w := x.begin(x.name("t"))
		x.ask(describeTransactions(x.name("absent"), ""))
		x.ask(describeTransactions())
		x.ask(describeTransactions(w.id, w.id))
	})

	add(66, 0, 0, "all", func(x *exchange) {
		x.begin(x.name("t"))
		x.ask(kmsg.NewPtrListTransactionsRequest())
	})
	for _, states := range [][]string{{"Empty"}, {"Ongoing"}, {"Nonsense"}, {"Empty", "Ongoing", "Nonsense"}} {
		add(66, 0, 0, fmt.Sprintf("in states %v", states), func(x *exchange) {
			x.begin(x.name("t"))
			x.open(x.begin(x.name("u")), at{x.topic("a", 1), 0})
			req := kmsg.NewPtrListTransactionsRequest()
			req.StateFilters = states
			x.ask(req)
		})
	}
	add(66, 1, 0, "of a producer, older than an hour", func(x *exchange) {
		w := x.begin(x.name("t"))
		req := kmsg.NewPtrListTransactionsRequest()
		req.ProducerIDFilters = []int64{w.producer}
		x.ask(req)
		req.DurationFilterMillis = 3_600_000
		x.ask(req)
		req = kmsg.NewPtrListTransactionsRequest()
		req.ProducerIDFilters = []int64{w.producer + 1_000_000}
		x.ask(req)
	})
	add(66, 2, 0, "by pattern", func(x *exchange) {
		x.begin(x.name("t"))
		for _, pattern := range []string{x.prefix + ".*", "nobody", "[", ""} {
			req := kmsg.NewPtrListTransactionsRequest()
			req.TransactionalIDPattern = text(pattern)
			x.ask(req)
		}
	})
	add(27, 0, 0, "no markers", func(x *exchange) { x.ask(kmsg.NewPtrWriteTxnMarkersRequest()) })
	for _, commit := range []bool{true, false} {
		add(27, 0, 0, fmt.Sprintf("by hand, commit %v", commit), func(x *exchange) {
			p := at{x.topic("a", 1), 0}
			w := x.begin(x.name("t"))
			x.open(w, p)
			x.appendIn(w, p, "x")
			req := kmsg.NewPtrWriteTxnMarkersRequest()
			m := kmsg.NewWriteTxnMarkersRequestMarker()
			m.ProducerID, m.ProducerEpoch, m.Committed, m.CoordinatorEpoch = w.producer, w.epoch, commit, 0
			m.Topics = append(m.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: p.topic, Partitions: []int32{0}})
			m.Topics = append(m.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: x.name("absent"), Partitions: []int32{0}})
			req.Markers = append(req.Markers, m)
			x.ask(req)
			x.stable(p)
			both(x, p)
		})
	}
	add(24, 0, addVersion, "topics of the broker's own", func(x *exchange) {
		a := x.topic("a", 1)
		w := x.begin(x.name("t"))
		x.ask(x.addPartitions(w, at{"__consumer_offsets", 0}))
		x.ask(x.addPartitions(w, at{"__transaction_state", 0}))
		x.ask(x.addPartitions(w, at{a, 0}, at{"__consumer_offsets", 0}))
		x.ask(describeTransactions(w.id))
	})
	add(24, 4, 0, "of several transactions, to be verified", func(x *exchange) {
		p := at{x.topic("a", 2), 0}
		w, open := x.begin(x.name("t")), x.begin(x.name("u"))
		x.open(open, p)
		x.ask(x.addPartitions(w, p, at{p.topic, 9}))
		req := x.addPartitions(w, p)
		req.Transactions = append(req.Transactions, x.addPartitions(open, p, at{p.topic, 1}).Transactions...)
		other, later := x.begin(x.name("v")), x.begin(x.name("w"))
		other.producer += 1_000_000
		later.epoch++
		for _, other := range []*writer{{id: x.name("absent")}, {id: ""}, other, later} {
			req.Transactions = append(req.Transactions, x.addPartitions(other, p).Transactions...)
		}
		for i := range req.Transactions {
			req.Transactions[i].VerifyOnly = true
		}
		x.ask(req)
	})
	add(27, 2, 0, "by hand, in the second protocol", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.open(w, p)
		x.appendIn(w, p, "x")
		marker := func(epoch int16, version int8) {
			req := kmsg.NewPtrWriteTxnMarkersRequest()
			m := kmsg.NewWriteTxnMarkersRequestMarker()
			m.ProducerID, m.ProducerEpoch, m.Committed, m.TransactionVersion = w.producer, epoch, true, version
			m.Topics = append(m.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: p.topic, Partitions: []int32{0}})
			req.Markers = append(req.Markers, m)
			x.ask(req)
			x.ask(offsets(-1, p))
		}
		marker(w.epoch, 2)
		marker(w.epoch+1, 2)
		x.stable(p)
		marker(w.epoch+1, 2) // again
		marker(w.epoch, 2)
		marker(w.epoch, 1)
		marker(w.epoch+1, 1)
		both(x, p)
	})
	add(0, 12, 0, "transactional, second protocol, sequences", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		w.sequence = 5
		x.ask(x.produceIn(w, w.records("x"), p))
		w.sequence = 0
		x.ask(x.produceIn(w, w.records("x"), p))
		w.sequence = 2
		x.ask(x.produceIn(w, w.records("x"), p))
		both(x, p)
	})
	add(0, 12, 0, "transactional, second protocol, producers that there are not", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		for _, other := range []writer{{id: x.name("absent")}, {id: ""}, {id: w.id, producer: w.producer + 1_000_000, epoch: w.epoch},
			{id: w.id, producer: w.producer, epoch: w.epoch + 1}} {
			x.ask(x.produceIn(&other, other.records("x"), p))
		}
		next := x.begin(w.id)
		x.ask(x.produceIn(w, w.records("x"), p))
		x.ask(x.produceIn(next, next.records("x"), p))
		both(x, p)
	})
	add(0, 3, 11, "transactional, sequences", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.open(w, p)
		w.sequence = 5
		x.ask(x.produceIn(w, w.records("x"), p))
		w.sequence = 2147483646
		x.ask(x.produceIn(w, w.records("x"), p))
		both(x, p)
	})
	add(26, 5, 0, "second protocol, partitions added in the first", func(x *exchange) {
		p := at{x.topic("a", 1), 0}
		w := x.begin(x.name("t"))
		x.open(w, p)
		x.appendIn(w, p, "x")
		x.ask(endTxn(&writer{id: w.id, producer: w.producer, epoch: w.epoch + 1}, true))
		x.ask(endTxn(w, true))
		x.completed(w.id)
		x.ask(endTxn(w, true)) // a retry
		x.ask(endTxn(w, false))
	})
	add(28, 5, 0, "second protocol", func(x *exchange) {
		p, g := at{x.topic("a", 1), 0}, x.name("g")
		w := x.begin(x.name("t"))
		for _, other := range []writer{{id: x.name("absent")}, {id: ""}, {id: w.id, producer: w.producer + 1_000_000, epoch: w.epoch},
			{id: w.id, producer: w.producer, epoch: w.epoch + 1}} {
			x.ask(x.commitIn(&other, g, p))
		}
		x.ask(x.commitIn(w, g, p))
		x.ask(x.commitIn(w, g, at{p.topic, 9}))
		x.ask(x.commitIn(w, "", p))
		x.ask(describeTransactions(w.id))
		stable := x.committed(g, p)
		stable.RequireStable = true
		x.ask(stable)
	})
	add(22, 3, 0, "transactional: halves of an identity", func(x *exchange) {
		w := x.begin(x.name("t"))
		x.ask(ids(w.id, 60_000, w.producer, -1))
		x.ask(ids(w.id, 60_000, -1, w.epoch))
		x.ask(ids(w.id, 60_000, -5, -1))
		x.ask(ids(x.name("absent"), 60_000, 5, 5))
	})
	return out
}
