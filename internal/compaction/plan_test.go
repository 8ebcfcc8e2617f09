package compaction_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"lagoon/internal/compaction"
	"lagoon/segment"
)

// TestPlan tells the policy in stories: testdata/plan. Commands:
//
//	log topic=T [partition=N] [start=O] [cleaned=O] [stable=O] [ratio=F] [min-lag=MS] [max-lag=MS]
//	  one line per segment: BASE NEXT BYTES [first=MS] [max=MS] [open] [place=N]; the last one is active
//	plan now=MS
//	groups topic=T end=O bytes=N [index=N]
func TestPlan(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		var logs []compaction.LogState
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "log":
				l := readLog(t, d)
				for i := range logs {
					if logs[i].Topic == l.Topic && logs[i].Partition == l.Partition {
						logs[i] = l
						return ""
					}
				}
				logs = append(logs, l)
				return ""
			case "plan":
				var out strings.Builder
				for _, w := range compaction.Plan(number(t, d, "now", 0), logs) {
					fmt.Fprintf(&out, "%s-%d: [%d, %d) clean %d, dirty %d, ratio %.2f", w.Topic, w.Partition, w.From, w.To, w.Clean, w.Dirty, w.Ratio)
					if w.OverdueMs > 0 {
						fmt.Fprintf(&out, ", overdue %d ms", w.OverdueMs)
					}
					fmt.Fprintf(&out, "; due %t: %s\n", w.Due, w.Why)
				}
				return out.String()
			case "groups":
				var topic string
				d.ScanArgs(t, "topic", &topic)
				var out strings.Builder
				for _, l := range logs {
					if l.Topic != topic {
						continue
					}
					lim := compaction.Limits{SegmentBytes: number(t, d, "bytes", 0), IndexBytes: number(t, d, "index", math.MaxInt64)}
					for _, g := range compaction.Groups(l.Segments, l.Start, segment.Offset(number(t, d, "end", 0)), func(i int) int64 { return l.Segments[i].SizeBytes / 100 }, lim) {
						for _, s := range l.Segments[g[0]:g[1]] {
							fmt.Fprintf(&out, "%d ", s.Base)
						}
						out.WriteString("\n")
					}
				}
				return out.String()
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func number(t *testing.T, d *datadriven.TestData, name string, otherwise int64) int64 {
	t.Helper()
	text := strconv.FormatInt(otherwise, 10)
	d.MaybeScanArgs(t, name, &text)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		d.Fatalf(t, "%s: %v", name, err)
	}
	return n
}

func readLog(t *testing.T, d *datadriven.TestData) compaction.LogState {
	t.Helper()
	ratio := "0.5"
	d.MaybeScanArgs(t, "ratio", &ratio)
	l := compaction.LogState{
		Partition: int32(number(t, d, "partition", 0)), Start: segment.Offset(number(t, d, "start", 0)), Cleaned: segment.Offset(number(t, d, "cleaned", 0)),
		Stable: segment.Offset(number(t, d, "stable", math.MaxInt64)), MinLagMs: number(t, d, "min-lag", 0), MaxLagMs: number(t, d, "max-lag", math.MaxInt64),
	}
	d.ScanArgs(t, "topic", &l.Topic)
	var err error
	if l.MinRatio, err = strconv.ParseFloat(ratio, 64); err != nil {
		d.Fatalf(t, "ratio: %v", err)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(d.Input), "\n") {
		f := strings.Fields(line)
		s := compaction.SegmentState{MaxTimestampMs: -1, FirstMs: -1, Ready: true}
		for i, p := range []*int64{(*int64)(&s.Base), (*int64)(&s.Next), &s.SizeBytes} {
			if *p, err = strconv.ParseInt(f[i], 10, 64); err != nil {
				d.Fatalf(t, "%s: %v", line, err)
			}
		}
		for _, word := range f[3:] {
			name, value, _ := strings.Cut(word, "=")
			n, _ := strconv.ParseInt(value, 10, 64)
			switch name {
			case "first":
				s.FirstMs = n
			case "max":
				s.MaxTimestampMs = n
			case "place":
				s.Place = int(n)
			case "open":
				s.Ready = false
			default:
				d.Fatalf(t, "unknown word %s", word)
			}
		}
		l.Segments = append(l.Segments, s)
	}
	return l
}
