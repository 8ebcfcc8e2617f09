package partition_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lagoon/internal/partition"
)

// What a reader is about to read stays in its tier although it is due to move, and says so; it moves when the reader has
// passed it.
func TestReadersPutOffMoves(t *testing.T) {
	s := open(t, func(o *partition.Options) { o.PlanInterval, o.DemandHorizon = 10*time.Millisecond, time.Hour }, osFS(t), osFS(t))
	cfg := config()
	l := load(t, s, cfg, 1)
	var sent []byte
	for i := range 400 {
		b := batch(fmt.Sprintf("b%d", i), 10, 2000, nil, time.Now().UnixMilli())
		produce(t, l, b)
		sent = append(sent, b...)
	}
	backfill := partition.ReaderRef{ClientID: "backfill"}
	segs := l.Segments()
	from := segs[3].Base + 1 // inside the fourth segment
	res, err := l.Read(partition.ReadRequest{Reader: backfill, From: from, MaxBytes: 1, MustServe: true})
	if err != nil {
		t.Fatal(err)
	}
	if res.Chunk != nil {
		res.Chunk.Release()
	}
	cfg.LocalRetentionBytes = 1 << 20
	s.SetConfig("orders", cfg)
	inCold := func() (n int) {
		for _, sv := range l.Segments() {
			if sv.Tier == "t1" {
				n++
			}
		}
		return n
	}
	waitFor(t, "the segments that the reader has passed in t1", func() bool { return inCold() == 3 && s.Migrator().Snapshot().PutOffCount > 0 })
	st := s.Migrator().Snapshot()
	if reason := st.PutOff[0].Reason; st.PutOff[0].Base != segs[3].Base || !strings.HasSuffix(reason, "put off: client:backfill is reading it") {
		t.Errorf("put off %+v", st.PutOff[0])
	}
	consume(t, l, backfill, from, 1<<20, since(t, sent, from))
	waitFor(t, "the rest in t1", func() bool { return inCold() > 5 && s.Migrator().Snapshot().PutOffCount == 0 })
	closeStore(t, s)
}
