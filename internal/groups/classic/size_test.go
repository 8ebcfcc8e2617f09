package classic_test

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"lagoon/internal/groups/classic"
)

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSizeCountsIDs: ids that were given out begin with what clients call themselves, and nobody has to come back with one.
func TestSizeCountsIDs(t *testing.T) {
	now, before := time.Unix(1_000_000, 0), heap()
	g := classic.New(&classic.Config{MinSession: time.Second, MaxSession: time.Minute, MaxSize: 10}, now)
	for i := range 50_000 {
		g.Join(now, classic.JoinRequest{NewID: fmt.Sprintf("%0290d", i), ProtocolType: "consumer", Protocols: []classic.Protocol{{Name: "range"}}, Session: time.Second, NeedsID: true})
		g.Effects()
	}
	takes := heap() - before
	if size := g.SizeBytes(); size < takes*2/3 || size > 2*takes {
		t.Errorf("%d bytes are counted of %d", size, takes)
	}
	if g.Tick(now.Add(time.Second)); g.SizeBytes() != 1024 {
		t.Errorf("%d bytes are counted of nobody", g.SizeBytes())
	}
}

// TestSizeCountsTopics: the topics of a generation take several times what they take in the metadata of members, and are counted.
func TestSizeCountsTopics(t *testing.T) {
	const topics = 200_000
	metadata := binary.BigEndian.AppendUint32([]byte{0, 0}, topics)
	for i := range topics {
		metadata = append(metadata, 0, 5)
		metadata = fmt.Appendf(metadata, "%05x", i)
	}
	now := time.Unix(1_000_000, 0)
	before := heap()
	g := classic.New(&classic.Config{MinSession: time.Second, MaxSession: time.Minute, MaxSize: 10}, now)
	g.Join(now, classic.JoinRequest{Ticket: 1, NewID: "m", ProtocolType: "consumer", Protocols: []classic.Protocol{{Name: "range", Metadata: metadata}}, Session: time.Second})
	if !g.Subscribed("00007") || g.Subscribed("other") {
		t.Fatal("the subscription was not read")
	}
	takes := heap() - before + int64(len(metadata))
	if size := g.SizeBytes(); size < takes/2 || size > 2*takes {
		t.Errorf("%d bytes are counted of %d", size, takes)
	}
	runtime.KeepAlive(metadata)
}
