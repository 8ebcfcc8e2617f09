package partition

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lagoon/cachectl"
)

const testMiB = 1 << 20

// TestHotPlan replays stories: who reads what, how much memory there is, and what stays.
func TestHotPlan(t *testing.T) {
	datadriven.Walk(t, "testdata/hotplan", func(t *testing.T, path string) {
		lim := hotLimits{keep: time.Minute, drop: DropAuto}
		var names []string
		logs := map[string]hotLog{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			mib := func(key string, def int64) int64 {
				if !d.HasArg(key) {
					return def
				}
				var v string
				d.ScanArgs(t, key, &v)
				n, err := strconv.ParseFloat(v, 64)
				if err != nil {
					t.Fatal(err)
				}
				return int64(n * testMiB)
			}
			span := func(key string, def time.Duration) time.Duration {
				if !d.HasArg(key) {
					return def
				}
				var v string
				d.ScanArgs(t, key, &v)
				n, err := time.ParseDuration(v)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			switch d.Cmd {
			case "memory": // all in MiB
				lim.memory = cachectl.Memory{Limit: mib("limit", 0), Free: mib("free", 0), Available: mib("available", 0)}
				lim.budget = hotBudget(0.5, lim.memory, mib("pinned", 0), mib("reserve", 256*testMiB))
				return fmt.Sprintf("budget %d MiB\n", lim.budget/testMiB)
			case "limits":
				lim.budget, lim.keep = mib("budget", lim.budget), span("keep", lim.keep)
				if d.HasArg("drop") {
					var v string
					d.ScanArgs(t, "drop", &v)
					lim.drop = DropBehind(v)
				}
				return ""
			case "log": // rate in MiB/s for the time that it has been watched; behind: the slowest reader's distance
				var name string
				d.ScanArgs(t, "name", &name)
				l := hotLog{reader: -1, wanted: !d.HasArg("unread")}
				rate, watched := mib("rate", 0), span("watched", 2*time.Minute)
				l.end = mib("end", 100_000*testMiB)
				l.start = mib("start", 0)
				for age := watched; age >= 0; age -= time.Second {
					l.marks = append(l.marks, hotMark{l.end - int64(age.Seconds()*float64(rate)), age})
				}
				if d.HasArg("behind") {
					l.reader = l.end - mib("behind", 0)
				}
				if _, had := logs[name]; !had {
					names = append(names, name)
				}
				logs[name] = l
				return ""
			case "plan":
				var list []hotLog
				for _, n := range names {
					list = append(list, logs[n])
				}
				p := planHot(lim, list)
				var b strings.Builder
				fmt.Fprintf(&b, "wanted %d MiB, kept %d MiB: %v of tail", p.wanted/testMiB, p.kept/testMiB, max(0, p.seconds))
				if p.short {
					b.WriteString(", short")
				}
				if p.dropping {
					b.WriteString(", dropping")
				}
				b.WriteByte('\n')
				for i, n := range names {
					fmt.Fprintf(&b, "%s: keeps the newest %.1f MiB", n, float64(list[i].end-p.logs[i].from)/testMiB)
					if p.dropping {
						fmt.Fprintf(&b, ", drops what is older than %.1f MiB", float64(list[i].end-p.logs[i].drop)/testMiB)
					}
					b.WriteByte('\n')
				}
				return b.String()
			}
			return "unknown command"
		})
	})
}

// TestHotPlanBounds: whatever the partitions look like, the plan keeps to the budget, inside the log, and drops nothing that
// it keeps or a real-time reader needs.
func TestHotPlanBounds(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	for range 3000 {
		lim := hotLimits{budget: rnd.Int64N(1 << uint(1+rnd.IntN(32))), keep: time.Duration(rnd.Int64N(int64(2 * time.Minute))),
			drop: []DropBehind{DropAuto, DropOn, DropOff}[rnd.IntN(3)], memory: cachectl.Memory{Limit: 1 << 30, Free: rnd.Int64N(1 << 30)}}
		logs := make([]hotLog, rnd.IntN(6))
		for i := range logs {
			l := hotLog{start: rnd.Int64N(1 << 30), reader: -1, wanted: rnd.IntN(4) > 0}
			l.end = l.start + rnd.Int64N(1<<30)
			at := l.start - rnd.Int64N(1<<20)
			for n := rnd.IntN(50); n > 0; n-- {
				l.marks = append(l.marks, hotMark{at, time.Duration(n) * time.Second * time.Duration(1+rnd.IntN(2))})
				at = min(l.end, at+rnd.Int64N(64<<20))
			}
			for i := 1; i < len(l.marks); i++ {
				l.marks[i].age = min(l.marks[i].age, l.marks[i-1].age)
			}
			if l.wanted && rnd.IntN(3) > 0 {
				l.reader = rnd.Int64N(l.end + 2)
			}
			logs[i] = l
		}
		p := planHot(lim, logs)
		var kept int64
		for i, l := range logs {
			k := p.logs[i]
			kept += l.end - k.from
			if k.from < l.start || k.from > l.end || k.drop > k.from || !l.wanted && k.from < l.end ||
				l.reader >= 0 && k.drop > max(0, l.reader-hotMargin) || k.drop > 0 && !p.dropping {
				t.Fatalf("%+v of %+v: %+v", lim, l, k)
			}
		}
		if kept != p.kept || kept > lim.budget {
			t.Fatalf("%+v: kept %d, says %d", lim, kept, p.kept)
		}
	}
}

// BenchmarkHotPlan is a round's thinking for many partitions whose memory is short.
func BenchmarkHotPlan(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			logs := make([]hotLog, n)
			for i := range logs {
				logs[i] = hotLog{end: 1 << 30, reader: 1<<30 - 1000, wanted: true}
				for age := 120; age >= 0; age-- {
					logs[i].marks = append(logs[i].marks, hotMark{1<<30 - int64(age)<<20, time.Duration(age) * time.Second})
				}
			}
			lim := hotLimits{budget: int64(n) * 10 << 20, keep: time.Minute, drop: DropOn}
			for b.Loop() {
				planHot(lim, logs)
			}
		})
	}
}
