package fairness

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"lagoon/internal/rawkafka"
	"lagoon/tests/internal/lagoontest"
)

const (
	raceSpeed   = 24e6 // bytes per second of the disk
	raceLog     = 360 * mib
	raceSegment = 4 * mib
	// With half of the disk the reader needs 31 s and more for its log, of which the last segment is deleted after raceTime.
	raceFirst = 8 * time.Second
	raceTime  = 28 * time.Second
)

// race: two consumers of equal weight share a disk; retention deletes the log of one of them faster than half of the disk reads it.
// Without the boost it loses more than 5 % of its data, with it nothing.
func race(w *world, boosted bool) (lost, total int64) {
	t := w.t
	w.start(fmt.Sprintf("throttle.retention_race=%v", boosted))
	batch := int64(len(rawkafka.Batch(batchRecords, valueBytes, 0)))
	batches := raceLog / batch
	total = batches * batchRecords
	// A segment is deleted when its newest record is old enough: the last one raceTime after the first one's raceFirst.
	step := float64(raceTime-raceFirst) / float64(time.Millisecond) / float64(batches)
	base := time.Now().Add(-time.Hour).UnixMilli()
	lagoontest.CreateTopic(t, w.b, "nightly", 1, "segment.bytes", fmt.Sprint(raceSegment), "retention.ms", "-1", "file.delete.delay.ms", "0")
	lagoontest.CreateTopic(t, w.b, "report", 1, "segment.bytes", fmt.Sprint(16*mib))
	w.fill("nightly", 1, raceLog, func(i int) int64 { return base + int64(float64(i)*step) })
	w.fill("report", 1, raceLog, func(int) int64 { return time.Now().UnixMilli() })
	w.cool(raceSpeed)

	report := w.consume("report", "report", 1, total, true)
	nightly := w.consume("nightly", "nightly", 1, total, false)
	retention := fmt.Sprint(time.Now().Add(raceFirst).UnixMilli() - base)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answers, err := lagoontest.AdminClient(t, w.b).AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &retention}}, "nightly")
	must(t, err)
	for _, a := range answers {
		must(t, a.Err)
	}
	shown := ""
	for began := time.Now(); time.Since(began) < raceTime; {
		w.wait(time.Second)
		if out := w.cli("readers"); strings.Contains(out, "retention: nightly") {
			shown = out
		}
	}
	select {
	case <-nightly.done:
	case <-w.ctx.Done():
		t.Fatal(context.Cause(w.ctx))
	case <-time.After(60 * time.Second):
		t.Fatal("nightly does not come to its end")
	}
	lost = nightly.lost.Load()
	t.Logf("boost %v: nightly got %.1f MB and lost %d of %d records (%.1f %%); report got %.1f MB", boosted, float64(nightly.bytes.Load())/1e6,
		lost, total, 100*float64(lost)/float64(total), float64(report.bytes.Load())/1e6)
	logs := w.b.Logs()
	for _, line := range regexp.MustCompile(`(?m)^.*retention race.*$`).FindAllString(logs, -1) {
		t.Log(line)
	}
	t.Logf("the last that lagoon readers showed of it:\n%s", shown)
	if n := strings.Count(logs, "data will be deleted before they are read"); n < 1 || n > 3 || shown == "" {
		t.Errorf("%d log lines tell of the race; lagoon readers told of it: %v", n, shown != "")
	}
	w.b.Stop()
	w.cancel(nil)
	w.wg.Wait()
	return lost, total
}
