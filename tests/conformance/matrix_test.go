package conformance

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/tests/internal/lagoontest"
)

// TestEveryClientReadsEveryClient writes one topic per client and codec, and has all clients read all of them. franz-go's read is the
// reference for the others; it is itself held against what was given to the producer. About 15 s, most of it JVM and interpreters.
func TestEveryClientReadsEveryClient(t *testing.T) {
	lagoontest.Require(t, "kcat", "python", "kafka")
	clients := []client{franz{}, kcat{}, kafkaPython, confluent, &javaTools{}}
	const records = 29
	b := lagoontest.Start(t, lagoontest.Options{})
	var all []job
	for _, c := range clients {
		var jobs []job
		floor := time.Now().UnixMilli()
		want, ownTimes := c.dataset(records)
		for _, codec := range codecs {
			j := job{Topic: fmt.Sprintf("from-%s-%s", c.name(), codec), Codec: codec, Count: records, Records: want}
			lagoontest.CreateTopic(t, b, j.Topic, 1, "retention.ms", "-1") // the data set is from 2023
			jobs = append(jobs, j)
		}
		c.produce(t, b, jobs)
		for i := range jobs {
			read := lagoontest.ReadFrom(t, b, jobs[i].Topic, 0, 0, records)
			checkCodec(t, jobs[i], read)
			got := fromKgo(read)
			if end := endOffset(t, b, jobs[i].Topic); end != records {
				t.Errorf("%s ends at %d, want %d", jobs[i].Topic, end, records)
			}
			if ownTimes {
				want = withTimes(t, want, got, floor)
			}
			same(t, jobs[i].Topic+" read by franz-go", got, want)
			jobs[i].Records = got
		}
		all = append(all, jobs...)
	}
	for _, c := range clients[1:] {
		t.Run(c.name()+" reads", func(t *testing.T) {
			asked := make([]job, len(all))
			for i, j := range all {
				asked[i] = job{Topic: j.Topic, Count: j.Count}
			}
			for i, got := range c.consume(t, b, asked) {
				same(t, all[i].Topic, got, readable(c, all[i].Records))
			}
		})
	}
}

// checkCodec: what the client compressed must still be compressed so in the log, every record that is worth it.
func checkCodec(t *testing.T, j job, records []*kgo.Record) {
	t.Helper()
	for _, r := range records {
		if got := codecs[r.Attrs.CompressionType()]; got != j.Codec && len(r.Value) >= bigValue {
			t.Errorf("%s: record %d lies in a batch with codec %s", j.Topic, r.Offset, got)
			return
		}
	}
}

// readable is what a client can show of the records; see lossy.
func readable(c client, records []record) []record {
	l, ok := c.(lossy)
	if !ok {
		return records
	}
	out := make([]record, len(records))
	for i, r := range records {
		out[i] = l.shows(r)
	}
	return out
}

// lossy clients print less than they receive.
type lossy interface{ shows(record) record }
