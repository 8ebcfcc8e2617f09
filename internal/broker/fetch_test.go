package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"lagoon/internal/broker/wire"
	"lagoon/internal/partition"
)

// summary is what a fetch response says, in short: partitions with their error, high watermark and record bytes.
func summary(resp *kmsg.FetchResponse) string {
	var out []string
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			out = append(out, fmt.Sprintf("%d:e%d,hw%d,%dB", p.Partition, p.ErrorCode, p.HighWatermark, len(p.RecordBatches)))
		}
	}
	return strings.Join(out, " ")
}

func (c *client) fetch(req *kmsg.FetchRequest) *kmsg.FetchResponse {
	c.t.Helper()
	return call[*kmsg.FetchResponse](c, req)
}

func same(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("\n got %s\nwant %s", got, want)
	}
}

func TestFetchAllVersions(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	r.logs["orders-0"].fill(t, 3, 100)
	for version := int16(4); version <= 18; version++ {
		req := fetchRequest(version, "orders", map[int32]int64{0: 1})
		req.Topics[0].TopicID = r.orders.ID
		resp := c.fetch(req)
		if tp := resp.Topics[0]; version <= 12 && tp.Topic != "orders" || version >= 13 && tp.TopicID != r.orders.ID {
			t.Fatalf("v%d: topic %q %x", version, tp.Topic, tp.TopicID)
		}
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.HighWatermark != 3 || p.LastStableOffset != 3 || len(p.RecordBatches) != 200 || p.AbortedTransactions != nil {
			t.Fatalf("v%d: %+v", version, p)
		}
		req.IsolationLevel = 1
		if p := c.fetch(req).Topics[0].Partitions[0]; p.AbortedTransactions == nil {
			t.Fatalf("v%d: read_committed got null aborted transactions", version)
		}
		req.Topics[0].Partitions[0].FetchOffset = 3
		req.MaxWaitMillis = 0
		if p := c.fetch(req).Topics[0].Partitions[0]; p.RecordBatches == nil || len(p.RecordBatches) != 0 {
			t.Fatalf("v%d: at the end %v, want empty and not null", version, p.RecordBatches)
		}
	}
}

func TestFetchErrors(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	r.logs["orders-0"].fill(t, 3, 100)
	r.logs["orders-0"].epoch = 5
	r.logs["orders-1"].readErr = partition.ErrFenced
	delete(r.logs, "orders-2")
	r.logs["other-0"].id = [16]byte{1} // another topic by now
	for name, tc := range map[string]struct {
		version int16
		topic   string
		part    int32
		offset  int64
		change  func(*kmsg.FetchRequest)
		want    *kerr.Error
	}{
		"unknown topic":         {12, "nowhere", 0, 0, nil, kerr.UnknownTopicOrPartition},
		"unknown id":            {13, "orders", 0, 0, nil, kerr.UnknownTopicID},
		"unknown partition":     {12, "orders", 3, 0, nil, kerr.UnknownTopicOrPartition},
		"not served":            {12, "orders", 2, 0, nil, kerr.NotLeaderForPartition},
		"of another topic":      {12, "other", 0, 0, nil, kerr.NotLeaderForPartition},
		"storage":               {12, "orders", 1, 0, nil, kerr.KafkaStorageError},
		"beyond the end":        {12, "orders", 0, 4, nil, kerr.OffsetOutOfRange},
		"negative":              {12, "orders", 0, -1, nil, kerr.OffsetOutOfRange},
		"old epoch":             {9, "orders", 0, 0, func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].CurrentLeaderEpoch = 4 }, kerr.FencedLeaderEpoch},
		"new epoch":             {9, "orders", 0, 0, func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].CurrentLeaderEpoch = 6 }, kerr.UnknownLeaderEpoch},
		"current epoch":         {9, "orders", 0, 0, func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].CurrentLeaderEpoch = 5 }, nil},
		"unknown fetched epoch": {12, "orders", 0, 0, func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].LastFetchedEpoch = 7 }, kerr.OffsetOutOfRange},
		"a replica":             {12, "orders", 0, 0, func(q *kmsg.FetchRequest) { q.ReplicaID = 0 }, kerr.NotLeaderForPartition},
		"a replica by tag":      {15, "orders", 0, 0, func(q *kmsg.FetchRequest) { q.ReplicaState.ID = 2; q.Topics[0].TopicID = r.orders.ID }, kerr.NotLeaderForPartition},
		"a debugger":            {12, "orders", 0, 0, func(q *kmsg.FetchRequest) { q.ReplicaID = -2 }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			req := fetchRequest(tc.version, tc.topic, map[int32]int64{tc.part: tc.offset})
			req.MaxWaitMillis = 60_000 // errors are answered at once
			if tc.change != nil {
				tc.change(req)
			}
			p := c.fetch(req).Topics[0].Partitions[0]
			switch {
			case tc.want == nil && (p.ErrorCode != 0 || len(p.RecordBatches) == 0):
				t.Fatalf("%+v", p)
			case tc.want != nil && (p.ErrorCode != tc.want.Code || p.HighWatermark != -1 || len(p.RecordBatches) != 0):
				t.Fatalf("%+v, want %v", p, tc.want)
			}
		})
	}
}

func TestFetchTellsOfTruncation(t *testing.T) {
	r := newRig(t, nil)
	r.logs["orders-0"].fill(t, 3, 100)
	r.logs["orders-0"].epoch = 2
	req := fetchRequest(12, "orders", map[int32]int64{0: 2})
	req.Topics[0].Partitions[0].LastFetchedEpoch = 3 // an epoch this log never had
	p := r.dial().fetch(req).Topics[0].Partitions[0]
	if p.ErrorCode != kerr.OffsetOutOfRange.Code {
		t.Fatalf("%+v", p)
	}
	req.Topics[0].Partitions[0].LastFetchedEpoch, req.Topics[0].Partitions[0].FetchOffset = 1, 9
	p = r.dial().fetch(req).Topics[0].Partitions[0] // a position that this log does not reach
	if p.ErrorCode != 0 || p.DivergingEpoch.Epoch != 2 || p.DivergingEpoch.EndOffset != 3 || len(p.RecordBatches) != 0 {
		t.Fatalf("%+v", p)
	}
}

func TestFetchOfZstdNeedsVersion10(t *testing.T) {
	r := newRig(t, nil)
	if err := r.b.meta.AlterTopicConfigs(r.orders.ID, map[string]string{"compression.type": "zstd"}, nil); err != nil {
		t.Fatal(err)
	}
	r.logs["orders-0"].fill(t, 1, 100)
	c := r.dial()
	for version, want := range map[int16]int16{9: kerr.UnsupportedCompressionType.Code, 10: 0} {
		if p := c.fetch(fetchRequest(version, "orders", map[int32]int64{0: 0})).Topics[0].Partitions[0]; p.ErrorCode != want {
			t.Fatalf("v%d: %+v", version, p)
		}
	}
}

func TestFetchLimits(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxFetchBytes = 10_000 })
	c := r.dial()
	for p := range 3 {
		r.logs[fmt.Sprintf("orders-%d", p)].fill(t, 4, 1000)
	}
	all := map[int32]int64{0: 0, 1: 0, 2: 0}
	for name, tc := range map[string]struct {
		maxBytes, partBytes int32
		want                string
	}{
		"everything":                 {1 << 20, 1 << 20, "0:e0,hw4,4000B 1:e0,hw4,4000B 2:e0,hw4,2000B"}, // the server's limit
		"by partition":               {1 << 20, 2500, "0:e0,hw4,2000B 1:e0,hw4,2000B 2:e0,hw4,2000B"},
		"by response":                {5500, 1 << 20, "0:e0,hw4,4000B 1:e0,hw4,1000B 2:e0,hw4,0B"},
		"one batch at least":         {10, 10, "0:e0,hw4,1000B 1:e0,hw4,0B 2:e0,hw4,0B"},
		"one batch at least, zero":   {0, 0, "0:e0,hw4,1000B 1:e0,hw4,0B 2:e0,hw4,0B"},
		"one batch at least, absurd": {-5, -5, "0:e0,hw4,1000B 1:e0,hw4,0B 2:e0,hw4,0B"},
	} {
		t.Run(name, func(t *testing.T) {
			req := fetchRequest(11, "orders", all)
			req.MaxBytes = tc.maxBytes
			for i := range req.Topics[0].Partitions {
				req.Topics[0].Partitions[i].PartitionMaxBytes = tc.partBytes
			}
			same(t, summary(c.fetch(req)), tc.want)
		})
	}
	// The batch that is always served is the first one there is, not that of the first partition.
	req := fetchRequest(11, "orders", map[int32]int64{0: 4, 1: 0, 2: 0})
	req.MaxBytes = 10
	same(t, summary(c.fetch(req)), "0:e0,hw4,0B 1:e0,hw4,1000B 2:e0,hw4,0B")
}

func TestFetchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		log := r.logs["orders-1"]
		later := func(d time.Duration, do func()) {
			go func() {
				time.Sleep(d)
				do()
			}()
		}
		check := func(name string, req *kmsg.FetchRequest, want string, after time.Duration) {
			t.Helper()
			began := time.Now()
			got := summary(c.fetch(req))
			if d := time.Since(began); got != want || d != after {
				t.Fatalf("%s:\n got %s after %v\nwant %s after %v", name, got, d, want, after)
			}
			synctest.Wait()
		}
		req := fetchRequest(11, "orders", map[int32]int64{0: 0, 1: 0})
		check("nothing comes", req, "0:e0,hw0,0B 1:e0,hw0,0B", 500*time.Millisecond)

		req.MaxWaitMillis = 0
		check("no wait", req, "0:e0,hw0,0B 1:e0,hw0,0B", 0)

		req.MaxWaitMillis = 10_000
		later(3*time.Second, func() { log.fill(t, 1, 100) })
		check("a record comes", req, "0:e0,hw0,0B 1:e0,hw1,100B", 3*time.Second)

		req.Topics[0].Partitions[1].FetchOffset = 1
		req.MinBytes = 250
		for i := range 3 {
			later(time.Duration(i+1)*time.Second, func() { log.fill(t, 1, 100) })
		}
		check("enough records come", req, "0:e0,hw0,0B 1:e0,hw4,300B", 3*time.Second+recheckPause)

		req.Topics[0].Partitions[1].FetchOffset = 4
		later(time.Second, func() { log.fill(t, 1, 100) })
		check("too few records come", req, "0:e0,hw0,0B 1:e0,hw5,100B", 10*time.Second)

		req.Topics[0].Partitions[1].FetchOffset = 5
		later(time.Second, func() { log.set(func() { log.readErr = partition.ErrFenced }) })
		check("an error comes", req, "0:e0,hw0,0B 1:e56,hw-1,0B", time.Second+recheckPause)

		check("no partitions", fetchRequest(11, "orders", nil), "", 0)
	})
}

// Where limits keep records out, waiting for min_bytes brings no more of them: a reader that catches up would get one answer per max_wait.
func TestFetchDoesNotWaitForWhatItsLimitsKeepOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.MaxFetchBytes = 10_000 })
		c := r.dial()
		for p := range 3 {
			r.logs[fmt.Sprintf("orders-%d", p)].fill(t, 4, 1000)
		}
		for _, tc := range []struct {
			name                          string
			offsets                       map[int32]int64
			minBytes, maxBytes, partBytes int32
			want                          string
			after                         time.Duration
		}{
			{"a batch that does not fit", map[int32]int64{0: 0}, 2500, 1 << 20, 2500, "0:e0,hw4,2000B", 0},
			{"less than one partition may give", map[int32]int64{0: 0, 1: 4}, 6000, 1 << 20, 3000, "0:e0,hw4,3000B 1:e0,hw4,0B", 0},
			{"the answer's limit", map[int32]int64{0: 1, 1: 2}, 6000, 5500, 1 << 20, "0:e0,hw4,3000B 1:e0,hw4,2000B", time.Minute},
			{"the answer's limit, and more", map[int32]int64{0: 1, 1: 1}, 6000, 5500, 1 << 20, "0:e0,hw4,3000B 1:e0,hw4,2000B", 0},
			{"all that the answer may hold", map[int32]int64{0: 1, 1: 2}, 6000, 5000, 1 << 20, "0:e0,hw4,3000B 1:e0,hw4,2000B", 0},
			{"all that any answer may hold", map[int32]int64{0: 0, 1: 0, 2: 2}, 1 << 20, 1 << 20, 1 << 20, "0:e0,hw4,4000B 1:e0,hw4,4000B 2:e0,hw4,2000B", 0},
			{"another partition's first batch", map[int32]int64{0: 0, 1: 3}, 5000, 4500, 1 << 20, "0:e0,hw4,4000B 1:e0,hw4,0B", 0},
			{"nothing there, nothing allowed", map[int32]int64{0: 4}, 1, 0, 0, "0:e0,hw4,0B", time.Minute},
			{"too little", map[int32]int64{0: 1}, 3001, 1 << 20, 1 << 20, "0:e0,hw4,3000B", time.Minute},
		} {
			req := fetchRequest(11, "orders", tc.offsets)
			req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 60_000, tc.minBytes, tc.maxBytes
			for i := range req.Topics[0].Partitions {
				req.Topics[0].Partitions[i].PartitionMaxBytes = tc.partBytes
			}
			began := time.Now()
			got := summary(c.fetch(req))
			if d := time.Since(began); got != tc.want || d != tc.after {
				t.Errorf("%s:\n got %s after %v\nwant %s after %v", tc.name, got, d, tc.want, tc.after)
			}
			synctest.Wait()
		}
	})
}

// A partition whose bytes are on their way never holds up the others.
func TestFetchOfHotAndCold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		hot, cold := r.logs["orders-0"], r.logs["orders-1"]
		hot.fill(t, 1, 100)
		cold.fill(t, 1, 200)
		cold.cold = true
		req := fetchRequest(11, "orders", map[int32]int64{0: 0, 1: 0})
		req.MaxWaitMillis, req.MinBytes = 10_000, 5000
		began := time.Now()
		same(t, summary(c.fetch(req)), "0:e0,hw1,100B 1:e0,hw1,0B")
		if d := time.Since(began); d != 0 {
			t.Fatalf("the hot partition was answered after %v", d)
		}

		req.Topics[0].Partitions[0].FetchOffset = 1
		go func() {
			time.Sleep(2 * time.Second)
			cold.set(func() { cold.cold, cold.memory = false, true })
		}()
		same(t, summary(c.fetch(req)), "0:e0,hw1,0B 1:e0,hw1,200B")
		if d := time.Since(began); d > 2*time.Second+recheckPause || d < 2*time.Second {
			t.Fatalf("the cold partition was answered after %v", d)
		}
	})
}

// A fetch that is not split waits for its cold partition, and the hot one with it: what a measurement leaves splitting out for.
func TestWholeFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(o *Options) { o.WholeFetches = true })
		c := r.dial()
		hot, cold := r.logs["orders-0"], r.logs["orders-1"]
		hot.fill(t, 1, 100)
		cold.fill(t, 1, 200)
		cold.cold = true
		req := fetchRequest(11, "orders", map[int32]int64{0: 0, 1: 0})
		req.MaxWaitMillis, req.MinBytes = 10_000, 1
		began := time.Now()
		time.AfterFunc(2*time.Second, func() { cold.set(func() { cold.cold, cold.memory = false, true }) })
		same(t, summary(c.fetch(req)), "0:e0,hw1,100B 1:e0,hw1,200B")
		if d := time.Since(began); d != 2*time.Second {
			t.Fatalf("both were answered after %v", d)
		}
	})
}

func TestParkedFetchEndsWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.dial()
		req := fetchRequest(11, "orders", map[int32]int64{0: 0})
		req.MaxWaitMillis = 1<<31 - 1
		c.send(req)
		synctest.Wait()
		c.nc.Close()
		synctest.Wait()
		if n := r.b.Connections(); n != 0 {
			t.Fatalf("%d connections", n)
		}
	})
}

// The long poll is in a figure of its own.
func TestFetchWaitIsNotLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		rec := &recorder{}
		r.b.apis[1].metrics.seconds = rec
		waited := &recorder{}
		r.b.metrics.fetchWait = waited
		req := fetchRequest(11, "orders", map[int32]int64{0: 0})
		req.MaxWaitMillis = 20_000
		r.dial().fetch(req)
		synctest.Wait()
		if rec.sum != 0 || waited.sum != 20 {
			t.Fatalf("latency %v s, wait %v s", rec.sum, waited.sum)
		}
	})
}

type recorder struct{ sum float64 }

func (r *recorder) Observe(v float64) { r.sum += v }

func sessionFetch(id, epoch int32, offsets map[int32]int64) *kmsg.FetchRequest {
	req := fetchRequest(12, "orders", offsets)
	req.SessionID, req.SessionEpoch, req.MaxWaitMillis = id, epoch, 0
	return req
}

func TestFetchSession(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	r.logs["orders-0"].fill(t, 2, 100)
	first := c.fetch(sessionFetch(0, 0, map[int32]int64{0: 0, 1: 0, 2: 0}))
	same(t, summary(first), "0:e0,hw2,200B 1:e0,hw0,0B 2:e0,hw0,0B")
	id := first.SessionID
	if id == 0 {
		t.Fatal("no session was made")
	}
	epoch := int32(0)
	incremental := func(offsets map[int32]int64, forget ...int32) string {
		t.Helper()
		epoch++
		req := sessionFetch(id, epoch, offsets)
		if len(forget) > 0 {
			f := kmsg.NewFetchRequestForgottenTopic()
			f.Topic, f.Partitions = "orders", forget
			req.ForgottenTopics = append(req.ForgottenTopics, f)
		}
		resp := c.fetch(req)
		if resp.ErrorCode != 0 || resp.SessionID != id {
			t.Fatalf("error %d, session %d", resp.ErrorCode, resp.SessionID)
		}
		return summary(resp)
	}
	same(t, incremental(map[int32]int64{0: 2}), "") // nothing new
	r.logs["orders-2"].fill(t, 1, 50)               // (a batch header is 61 bytes)
	same(t, incremental(nil), "2:e0,hw1,61B")       // only what is new
	same(t, incremental(map[int32]int64{2: 1}), "") // told already
	r.logs["orders-1"].set(func() { r.logs["orders-1"].readErr = partition.ErrFenced })
	same(t, incremental(nil), "1:e56,hw-1,0B")
	same(t, incremental(nil), "1:e56,hw-1,0B") // errors are told again
	r.logs["orders-1"].set(func() { r.logs["orders-1"].readErr = nil })
	same(t, incremental(nil), "1:e0,hw0,0B") // and that it is over
	r.logs["orders-2"].fill(t, 1, 70)
	same(t, incremental(nil, 2), "") // forgotten
	r.logs["orders-0"].set(func() { r.logs["orders-0"].start = 1 })
	same(t, incremental(nil), "0:e0,hw2,0B") // the log start moved
	same(t, incremental(map[int32]int64{2: 1}), "2:e0,hw2,70B")
	if n, parts := r.b.sessions.usage(); n != 1 || parts != 3 {
		t.Fatalf("%d sessions with %d partitions", n, parts)
	}

	// Forgetting everything ends the session.
	epoch++
	req := sessionFetch(id, epoch, nil)
	f := kmsg.NewFetchRequestForgottenTopic()
	f.Topic, f.Partitions = "orders", []int32{0, 1, 2}
	req.ForgottenTopics = append(req.ForgottenTopics, f)
	if resp := c.fetch(req); resp.SessionID != 0 || resp.ErrorCode != 0 {
		t.Fatalf("%+v", resp)
	}
	if n, parts := r.b.sessions.usage(); n != 0 || parts != 0 {
		t.Fatalf("%d sessions with %d partitions", n, parts)
	}
}

func TestFetchSessionErrors(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	id := c.fetch(sessionFetch(0, 0, map[int32]int64{0: 0})).SessionID
	refused := func(req *kmsg.FetchRequest, want *kerr.Error) {
		t.Helper()
		if resp := c.fetch(req); resp.ErrorCode != want.Code || resp.SessionID != 0 || len(resp.Topics) != 0 {
			t.Fatalf("%+v, want %v", resp, want)
		}
	}
	refused(sessionFetch(id+1, 1, nil), kerr.FetchSessionIDNotFound)
	refused(sessionFetch(0, 1, nil), kerr.FetchSessionIDNotFound)
	refused(sessionFetch(id, 2, nil), kerr.InvalidFetchSessionEpoch)
	refused(sessionFetch(id, -7, nil), kerr.InvalidFetchSessionEpoch)
	byID := sessionFetch(id, 1, nil)
	byID.Version = 13
	refused(byID, kerr.FetchSessionTopicIDError)
	if resp := c.fetch(sessionFetch(id, 1, nil)); resp.ErrorCode != 0 {
		t.Fatalf("after refusals: %+v", resp)
	}
	// Epoch 0 with an id replaces the session, epoch -1 ends it; both answer in full.
	resp := c.fetch(sessionFetch(id, 0, map[int32]int64{0: 0, 1: 0}))
	if resp.SessionID == id || resp.SessionID == 0 || summary(resp) != "0:e0,hw0,0B 1:e0,hw0,0B" {
		t.Fatalf("%+v", resp)
	}
	refused(sessionFetch(id, 1, nil), kerr.FetchSessionIDNotFound)
	resp = c.fetch(sessionFetch(resp.SessionID, -1, map[int32]int64{1: 0}))
	if resp.SessionID != 0 || summary(resp) != "1:e0,hw0,0B" {
		t.Fatalf("%+v", resp)
	}
	if n, _ := r.b.sessions.usage(); n != 0 {
		t.Fatalf("%d sessions", n)
	}
}

func TestFetchSessionByTopicID(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	r.logs["orders-0"].fill(t, 1, 100)
	req := sessionFetch(0, 0, map[int32]int64{0: 0})
	req.Version, req.Topics[0].TopicID = 17, r.orders.ID
	first := c.fetch(req)
	same(t, summary(first), "0:e0,hw1,100B")
	// The topic is deleted and made again under its name: the session's id is another topic's now.
	if err := r.b.meta.DeleteTopic(r.orders.ID); err != nil {
		t.Fatal(err)
	}
	next := sessionFetch(first.SessionID, 1, nil)
	next.Version = 17
	resp := c.fetch(next)
	same(t, summary(resp), "0:e100,hw-1,0B")
	if resp.Topics[0].TopicID != r.orders.ID {
		t.Fatalf("topic %x", resp.Topics[0].TopicID)
	}
}

// When responses are full, every partition of a session gets its turn.
func TestFetchSessionRotates(t *testing.T) {
	r := newRig(t, nil)
	c := r.dial()
	for p := range 3 {
		r.logs[fmt.Sprintf("orders-%d", p)].fill(t, 4, 1000)
	}
	req := sessionFetch(0, 0, map[int32]int64{0: 0, 1: 0, 2: 0})
	req.MaxBytes = 1000
	resp := c.fetch(req)
	served := fmt.Sprint(servedBy(resp))
	offsets := map[int32]int64{servedBy(resp)[0]: 1}
	for epoch := int32(1); epoch <= 5; epoch++ {
		next := sessionFetch(resp.SessionID, epoch, offsets)
		next.MaxBytes = 1000
		got := servedBy(c.fetch(next))
		served += fmt.Sprint(got)
		offsets = map[int32]int64{got[0]: int64(epoch)/3 + 1}
	}
	same(t, served, "[0][1][2][0][1][2]")
}

func servedBy(resp *kmsg.FetchResponse) (p []int32) {
	for _, t := range resp.Topics {
		for _, part := range t.Partitions {
			if len(part.RecordBatches) > 0 {
				p = append(p, part.Partition)
			}
		}
	}
	return p
}

func TestSessionCacheIsBounded(t *testing.T) {
	m, err := newMetrics(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	s := newSessionCache(2, m)
	now := time.Unix(1000, 0)
	create := func(n int) *fetchSession { return s.create(n, false, now) }
	a, b := create(10), create(10)
	if a == nil || b == nil || create(1) != nil {
		t.Fatal("two slots hold not exactly two fresh sessions")
	}
	now = now.Add(evictAfter - time.Second)
	s.use(a.id, now)
	now = now.Add(time.Second)
	c := create(5) // b is the older one
	if _, ok := s.use(b.id, now); c == nil || ok {
		t.Fatal("the session that was not used for long stayed")
	}
	if _, ok := s.use(a.id, now); !ok {
		t.Fatal("a used session was evicted")
	}
	if n, parts := s.usage(); n != 2 || parts != 15 {
		t.Fatalf("%d sessions with %d partitions", n, parts)
	}
	s.end(a.id)
	if create(maxSessionPartitions) != nil {
		t.Fatal("more partitions than all sessions may hold")
	}
	if !s.resize(c, 100) || s.resize(c, maxSessionPartitions+1) {
		t.Fatal("resize does not obey the limit")
	}
	if n, parts := s.usage(); n != 0 || parts != 0 {
		t.Fatalf("%d sessions with %d partitions", n, parts)
	}
	if s := newSessionCache(-1, m); s.create(1, false, now) != nil {
		t.Fatal("a cache without slots made a session")
	}
}

func TestSessionEpochWraps(t *testing.T) {
	if nextEpoch(1<<31-1) != 1 || nextEpoch(1) != 2 {
		t.Fatal("epoch 0 and -1 mean something else")
	}
}

// Without slots the client is answered as Kafka does with a full cache: session 0, everything in full.
func TestFetchWithoutSessions(t *testing.T) {
	r := newRig(t, func(o *Options) { o.FetchSessions = -1 })
	c := r.dial()
	for range 2 {
		if resp := c.fetch(sessionFetch(0, 0, map[int32]int64{0: 0, 1: 0})); resp.SessionID != 0 || summary(resp) != "0:e0,hw0,0B 1:e0,hw0,0B" {
			t.Fatalf("%+v", resp)
		}
	}
}

// fetchBench answers fetches of 1 batch from each of n partitions.
func fetchBench(b testing.TB, n int) (run func()) {
	r := newRig(b, nil)
	var parts []wire.FetchPartition
	for i := range n {
		log := r.logs[fmt.Sprintf("orders-%d", i%3)]
		if log.end() == 0 {
			log.fill(b, 1, 1000)
		}
		parts = append(parts, wire.FetchPartition{Topic: "orders", Partition: int32(i % 3), CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, MaxBytes: 1 << 20})
	}
	conn := newConn(r.b, &endpoint{}, nullConn{})
	ctx := context.Background()
	return func() {
		reply := fetchReplies.Get().(*fetchReply)
		reply.api, reply.version, reply.received, reply.clientID = &r.b.apis[1], 12, time.Now(), "bench"
		reply.req.ReplicaID, reply.req.SessionEpoch, reply.req.MaxBytes, reply.req.MinBytes = -1, -1, 1<<25, 1
		reply.req.Partitions = append(reply.req.Partitions[:0], parts...)
		if err := reply.send(ctx, conn); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			run := fetchBench(b, n)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}
