package broker

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"lagoon/internal/broker/wire"
	"lagoon/internal/metadata"
	"lagoon/internal/partition"
	"lagoon/internal/quotas"
	"lagoon/segment"
)

// Fetch (key 1)
//
// Behaviour:
//   - Parks on the connection's response goroutine, which does not hold up the reading of later requests, and its response
//     keeps its place.
//   - Partitions are read in the order of the request (of the session's rotation). The first one with records gets at
//     least one whole batch whatever the limits say; records are whole batches.
//   - Done at once: enough bytes (min_bytes, or as much as the answer may hold), records of a partition that has more than
//     its limit let in, an error, a truncated position, max_wait 0. Else the fetch parks until one of its partitions has
//     more, a cold read comes in, max_wait ends, or the broker shuts down. (Kafka counts bytes up to the limits, whole
//     batches or not, and does not wait either.)
//   - A partition whose bytes are still on their way from a device (Pending) is answered without records and joins a
//     later fetch; those that can be served are answered now and never wait for it, min_bytes notwithstanding.
//   - A consumer cannot pretend to be a replica (CVE-2018-1288): replica ids from 0 on are no replicas of any partition
//     here and get NOT_LEADER_OR_FOLLOWER, as Kafka answers a replica that is not in the assignment.
//   - A client above its consumer_byte_rate gets an empty answer with the time to wait, and nothing is read for it; one that comes
//     above it with this answer gets the answer with the time to wait. Kafka throws away what it has read in the second case, too;
//     what a client gets in the long run is the same. Either way nothing more is read from the connection for so long (KIP-219).
//     One answer holds at most what ten seconds bring. Throttle times have no other use: cold reads that wait are a long poll.
//
// Version notes: 4 is the lowest (magic 2 everywhere); zstd needs v10 (KIP-110); sessions from v7; leader epochs from v9;
// truncation detection from v12; topic ids from v13 (KIP-516); the replica id is a tag from v15 on.

const (
	// zstdFetchVersion is the first that may return zstd (KIP-110).
	zstdFetchVersion = 10
	// recheckPause bounds how often a fetch whose min_bytes was not reached reads again while records trickle in.
	recheckPause = 5 * time.Millisecond
	// liveBytes is the largest answer whose time says something about the broker: larger ones take as long as the client takes
	// to receive them.
	liveBytes = 1 << 20
	// maxFetchWait bounds what a client may ask for; a longer wait only means that it asks again.
	maxFetchWait = 5 * time.Minute
)

// fetchReply is a decoded Fetch request that waits for its turn.
type fetchReply struct {
	api      *api
	version  int16
	corr     int32
	received time.Time
	clientID string
	req      wire.FetchRequest

	throttled time.Duration // the client was over its consumer_byte_rate before: nothing is read for it
	looked    bool          // the first look is done
	done      bool          // and it was enough
	began     time.Time
	due       time.Time // when records were there and asked for
	live      bool      // some of them for a real-time reader, from the page cache
	refuse    error     // of the plan
	plan      fetchPlan
	found     []fetched // by target
	resp      wire.FetchResponse
	parts     []wire.FetchedPartition // what resp.Topics are cut from
	splits    []wire.Split
}

// fetched is what became of one target.
type fetched struct {
	part  wire.FetchedPartition
	more  bool // see partition.ReadResult
	topic *topicCounter
}

var fetchReplies = sync.Pool{New: func() any { return &fetchReply{} }}

func (c *conn) startFetch(_ context.Context, in *incoming) error {
	reply, err := c.decodeFetch(in)
	in.frame.Release()
	if err != nil {
		return err
	}
	return c.enqueue(reply)
}

// decodeFetch reads the request and cuts its ties to the frame.
func (c *conn) decodeFetch(in *incoming) (_ *fetchReply, err error) {
	defer c.recovered(&err, "fetch")
	if in.header.Version >= 12 {
		if in.body, err = wire.SkipHeaderTags(in.body); err != nil {
			return nil, err
		}
	}
	if len(in.body) > int(in.api.maxBody) {
		return nil, errBodySize
	}
	r := fetchReplies.Get().(*fetchReply)
	r.api, r.version, r.corr, r.received, r.clientID = in.api, in.header.Version, in.header.CorrelationID, in.received, c.clientID
	if err := r.req.Read(in.header.Version, in.body); err != nil {
		return nil, err
	}
	r.req.Rack = ""
	snap := c.b.meta.Snapshot()
	if err := checkEntries(snap, "Fetch", len(r.req.Partitions)+len(r.req.Forgotten)); err != nil {
		return nil, err
	}
	intern := interner{snap: snap}
	for i := range r.req.Partitions {
		r.req.Partitions[i].Topic = intern.name(r.req.Partitions[i].Topic)
	}
	for i := range r.req.Forgotten {
		r.req.Forgotten[i].Topic = intern.name(r.req.Forgotten[i].Topic)
	}
	return r, nil
}

// fewEntries are partitions that any request may name.
const fewEntries = 10_000

// checkEntries refuses a request that names many more partitions than there are: what is kept of each while it is answered takes many
// times the bytes that name it.
func checkEntries(snap *metadata.Snapshot, api string, n int) error {
	if n <= fewEntries || n <= 2*snap.Partitions() {
		return nil
	}
	return fmt.Errorf("%w: %s names %d partitions, there are %d", wire.ErrTooMany, api, n, snap.Partitions())
}

// interner turns names that alias a frame into strings that live on: the catalogue's own where there is one.
type interner struct {
	snap     *metadata.Snapshot
	from, to string
}

func (n *interner) name(s string) string {
	if s == "" {
		return ""
	}
	if s == n.from {
		return n.to
	}
	n.from = s
	if t, ok := n.snap.Topic(s); ok {
		n.to = t.Name
	} else {
		n.to = strings.Clone(s)
	}
	return n.to
}

// ready takes the first look: most fetches are answered by it.
func (r *fetchReply) ready(c *conn) bool {
	r.looked, r.began = true, time.Now()
	r.due = r.began
	plan, err := c.b.sessions.plan(&r.req, r.version >= 13, r.began, r.plan.targets[:0])
	if err != nil {
		r.refuse = err
		return true
	}
	r.plan = plan
	if r.throttled = c.b.limits.record(quotas.ConsumerByteRate, clientOf(r.clientID), 0); r.throttled > 0 {
		r.done = true
		return true
	}
	// It takes no part in notifications.
	r.done = r.read(c, nil) || r.wait() == 0
	return r.done
}

// wait is how long the client would have the fetch parked.
func (r *fetchReply) wait() time.Duration {
	return min(time.Duration(max(r.req.MaxWaitMs, 0))*time.Millisecond, maxFetchWait)
}

// send runs the fetch.
func (r *fetchReply) send(ctx context.Context, c *conn) error {
	defer r.drop()
	if !r.looked {
		r.ready(c)
	}
	if r.refuse != nil {
		return r.answer(c, kerrCode(r.refuse), 0)
	}
	waited, err := r.collect(ctx, c)
	if err != nil {
		return err
	}
	return r.answer(c, 0, waited)
}

func kerrCode(err error) int16 {
	code, _ := codeOf(err)
	return code
}

// collect reads until the fetch may be answered, and tells how long it was parked.
func (r *fetchReply) collect(ctx context.Context, c *conn) (waited time.Duration, err error) {
	if r.done {
		return 0, nil
	}
	began := time.Now()
	deadline := time.NewTimer(time.Until(r.received.Add(r.wait())))
	defer deadline.Stop()
	watch := partition.NewWatch()
	defer watch.Close()
	for {
		r.release()
		if r.read(c, watch) {
			return time.Since(began), nil
		}
		select {
		case <-watch.C():
			r.due = watch.NotifiedAt()
		case <-deadline.C:
			return time.Since(began), nil
		case <-c.stopping:
			return time.Since(began), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if r.req.MinBytes > 1 {
			// Records trickle in below min_bytes: look at them in larger portions.
			pause := time.NewTimer(recheckPause)
			select {
			case <-pause.C:
			case <-deadline.C:
				deadline.Reset(0)
			case <-ctx.Done():
			}
			pause.Stop()
			r.due = time.Now() // the pause was wanted
		}
	}
}

// read looks at every target once and reports whether the fetch may be answered.
func (r *fetchReply) read(c *conn, watch *partition.Watch) (done bool) {
	b := c.b
	snap := b.meta.Snapshot()
	budget := b.limits.most(quotas.ConsumerByteRate, clientOf(r.clientID), int64(min(max(r.req.MaxBytes, 0), b.opt.MaxFetchBytes)))
	enough := min(int64(r.req.MinBytes), max(budget, 1))
	total := int64(0)
	pending, owed, more := false, false, false
	done = len(r.plan.targets) == 0
	var topic *metadata.Topic
	var counter *topicCounter
	var topicErr error
	for i := range r.plan.targets {
		t := &r.plan.targets[i]
		if prev := i - 1; prev < 0 || t.Topic != r.plan.targets[prev].Topic || t.TopicID != r.plan.targets[prev].TopicID {
			counter = nil
			if topic, topicErr = findTopic(snap, r.version >= 13, t.Topic, t.TopicID); topicErr == nil {
				counter = b.metrics.topics.of(topic.Name)
			}
		}
		f := fetched{topic: counter}
		f.part = wire.FetchedPartition{Partition: t.Partition, HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1, DivergingEpoch: -1}
		err := topicErr
		if err == nil {
			req := partition.ReadRequest{
				Reader:    b.reader(r.clientID, &c.peer, topic.Name, t.Partition),
				From:      segment.Offset(t.FetchOffset),
				MaxBytes:  min(int64(max(t.MaxBytes, 0)), budget),
				MustServe: total == 0,
				Committed: r.req.Committed,
				Watch:     watch,
			}
			before := pending
			pending, err = r.readOne(b, topic, t, req, &f, false)
			owed = owed || pending && f.part.Records == nil
			pending = pending || before
		}
		if err != nil {
			f.part.ErrorCode = b.code(err, "fetch")
		}
		if f.part.Records != nil {
			n := f.part.Records.Len()
			total += n
			budget = max(budget-n, 0)
			if f.part.Records.Bytes() != nil {
				pending = true // it came from a device: the rest is on its way there too
			}
		}
		more = more || f.more
		if f.part.ErrorCode != 0 || f.part.DivergingEpoch >= 0 {
			done = true
		}
		r.found = append(r.found, f)
	}
	if owed && b.opt.WholeFetches {
		return done
	}
	return done || total >= enough || (pending || more) && total > 0
}

// reader says who reads, with the group as far as it is known: a fetch does not name it.
func (b *Broker) reader(clientID string, p *peer, topic string, index int32) partition.ReaderRef {
	group, source := b.groups.Owner(clientID, p.host, topic, index)
	return partition.ReaderRef{Group: group, GroupSource: string(source), ClientID: clientID, Peer: p.addr, Conn: p.conn}
}

// readOne reads one partition. pending is passed through and set when bytes are on their way.
func (r *fetchReply) readOne(b *Broker, topic *metadata.Topic, t *fetchTarget, req partition.ReadRequest, f *fetched, pending bool) (bool, error) {
	if r.req.ReplicaID >= 0 {
		return pending, kerr.NotLeaderForPartition
	}
	if r.version < zstdFetchVersion && topic.Configs["compression.type"] == "zstd" {
		return pending, kerr.UnsupportedCompressionType
	}
	log, err := b.partitionOf(topic, t.Partition)
	if err != nil {
		return pending, err
	}
	o := log.Offsets()
	if err := checkEpoch(t.CurrentLeaderEpoch, o); err != nil {
		return pending, err
	}
	if t.LastFetchedEpoch >= 0 {
		epoch, end := log.EndOffsetForEpoch(t.LastFetchedEpoch)
		switch {
		case epoch < 0 || end < 0:
			return pending, kerr.OffsetOutOfRange
		case epoch < t.LastFetchedEpoch || int64(end) < t.FetchOffset:
			f.part.DivergingEpoch, f.part.DivergingEndOffset = epoch, int64(end)
			f.setOffsets(o, r.req.Committed, nil)
			return pending, nil
		}
	}
	res, err := log.Read(req)
	if err != nil {
		if res.Records != nil {
			res.Records.Release()
		}
		return pending, err
	}
	f.setOffsets(res.Offsets, r.req.Committed, res.Aborted)
	f.part.Records, f.more = res.Records, res.More
	r.live = r.live || res.Live
	return pending || res.Pending, nil
}

func (f *fetched) setOffsets(o partition.Offsets, committed bool, aborted []partition.AbortedTxn) {
	f.part.HighWatermark, f.part.LastStableOffset, f.part.LogStartOffset = int64(o.HighWatermark), int64(o.LastStable), int64(o.LogStart)
	if !committed {
		return
	}
	f.part.Aborted = make([]wire.AbortedTxn, 0, len(aborted)) // empty, not null, for read_committed
	for _, a := range aborted {
		f.part.Aborted = append(f.part.Aborted, wire.AbortedTxn{ProducerID: a.ProducerID, FirstOffset: int64(a.FirstOffset)})
	}
}

// answer encodes and sends what was collected.
func (r *fetchReply) answer(c *conn, code int16, waited time.Duration) error {
	r.compose(c, code)
	r.resp.ThrottleMs = c.mute(r.charge(c, waited))
	buf := wire.NewBuffer(0)
	defer buf.Release()
	buf.B, r.splits = wire.AppendFetch(buf.B, r.splits[:0], r.version, r.corr, &r.resp)
	ready := time.Now()
	err := c.out.Send(buf.B, r.splits)
	end := time.Now()
	m := c.b.metrics
	if waited > 0 {
		m.fetchWait.Observe(waited.Seconds())
	}
	m.fetchRead.Observe((ready.Sub(r.began) - waited).Seconds())
	m.fetchSend.Observe(end.Sub(ready).Seconds())
	if r.live && r.bytes() <= liveBytes && err == nil && c.b.opt.Store != nil {
		c.b.opt.Store.RealtimeFetch(end.Sub(r.due))
	}
	r.api.metrics.seconds.Observe((end.Sub(r.received) - waited).Seconds())
	return err
}

// charge counts the answer against the client's quotas and tells how long it has to wait.
func (r *fetchReply) charge(c *conn, waited time.Duration) time.Duration {
	if r.throttled > 0 {
		return r.throttled
	}
	n := int64(0)
	for i := range r.found {
		if records := r.found[i].part.Records; records != nil {
			n += records.Len()
		}
	}
	client := clientOf(r.clientID)
	return max(c.b.limits.record(quotas.ConsumerByteRate, client, float64(n)), c.b.limits.spent(client, time.Since(r.began)-waited))
}

// bytes is how much the answer holds. An answer that holds cold bytes, too, is never counted as live.
func (r *fetchReply) bytes() (n int64) {
	for i := range r.found {
		if records := r.found[i].part.Records; records != nil {
			if records.Bytes() != nil {
				return math.MaxInt64
			}
			n += records.Len()
		}
	}
	return n
}

// compose builds the response from what was found: everything, or what changed for an incremental fetch.
func (r *fetchReply) compose(c *conn, code int16) {
	r.resp = wire.FetchResponse{ErrorCode: code, Topics: r.resp.Topics[:0]}
	r.parts = r.parts[:0]
	session := r.plan.session
	if session != nil && r.throttled > 0 && !r.plan.incremental {
		c.b.sessions.end(session.id) // an empty answer to a full fetch: the client begins anew
		session = nil
	}
	if session != nil {
		r.resp.SessionID = session.id
		session.mu.Lock()
		defer session.mu.Unlock()
	}
	first := 0 // where the current topic begins in parts
	for i := range r.found {
		f, t := &r.found[i], &r.plan.targets[i]
		r.count(c, f)
		if session != nil && !session.changed(t.member, &f.part) && r.plan.incremental {
			continue
		}
		if n := len(r.resp.Topics); n == 0 || r.resp.Topics[n-1].Name != t.Topic || r.resp.Topics[n-1].ID != t.TopicID {
			first = len(r.parts)
			r.resp.Topics = append(r.resp.Topics, wire.FetchedTopic{Name: t.Topic, ID: t.TopicID})
		}
		r.parts = append(r.parts, f.part)
		r.resp.Topics[len(r.resp.Topics)-1].Partitions = r.parts[first:]
	}
}

// count adds one partition's answer to the metrics.
func (r *fetchReply) count(c *conn, f *fetched) {
	if f.topic != nil {
		f.topic.fetchRequests.Add(1)
		if f.part.ErrorCode != 0 {
			f.topic.failedFetch.Add(1)
		}
		if f.part.Records != nil {
			f.topic.bytesOut.Add(f.part.Records.Len())
		}
	}
	if f.part.ErrorCode != 0 {
		c.b.metrics.failed(r.api.name, f.part.ErrorCode)
	}
}

// release gives back the records of a look, answered or not.
func (r *fetchReply) release() {
	for i := range r.found {
		if records := r.found[i].part.Records; records != nil {
			r.found[i].part.Records = nil
			records.Release()
		}
	}
	clear(r.found)
	r.found, r.live = r.found[:0], false
}

func (r *fetchReply) drop() {
	r.release()
	r.throttled, r.looked, r.done, r.began, r.due, r.refuse = 0, false, false, time.Time{}, time.Time{}, nil
	clear(r.plan.targets)
	r.plan = fetchPlan{targets: r.plan.targets[:0]}
	clear(r.resp.Topics)
	clear(r.parts)
	clear(r.splits)
	clear(r.req.Partitions)
	clear(r.req.Forgotten)
	fetchReplies.Put(r)
}

func (r *fetchReply) size() int { return 256 + 64*len(r.req.Partitions) }
