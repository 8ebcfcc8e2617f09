package conformance

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// TestConfluentTransactions: librdkafka copies a topic exactly once, and a producer that comes later fences the one before.
func TestConfluentTransactions(t *testing.T) {
	lagoontest.Require(t, "python")
	b := lagoontest.Start(t, lagoontest.Options{Set: quickGroups})
	cl := lagoontest.Client(t, b, kgo.DefaultProduceTopic("in"), kgo.AllowAutoTopicCreation())
	var want []string
	for i := range 500 {
		want = append(want, fmt.Sprintf("%04d", i))
		if err := cl.ProduceSync(testContext(t), kgo.StringRecord(want[i])).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	lagoontest.CreateTopic(t, b, "out", 1)
	var got struct {
		Values []string
		Fenced string
	}
	confluent.do(t, b, map[string]any{"op": "transactions", "id": "copy", "from": "in", "to": "out", "count": len(want)}, &got)
	if slices.Sort(got.Values); !slices.Equal(got.Values, want) {
		t.Errorf("%d values: %v", len(got.Values), got.Values)
	}
	if got.Fenced != "_FENCED" {
		t.Errorf("the producer before: %s", got.Fenced)
	}
}
