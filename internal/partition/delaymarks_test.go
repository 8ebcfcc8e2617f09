package partition

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lagoon/segment"
)

// TestDelayMarks replays stories: what is appended when, and what is seen when. Offsets are records, one batch each; times are since
// the story began.
func TestDelayMarks(t *testing.T) {
	datadriven.Walk(t, "testdata/delay", func(t *testing.T, path string) {
		var d delayMarks
		now := int64(0)
		look := func() string {
			d.advance(now)
			next := "nothing more is due"
			if ms, ok := d.next(); ok {
				next = fmt.Sprintf("next at %v", time.Duration(ms)*time.Millisecond)
			}
			return fmt.Sprintf("at %v: seen to %d of %d, %s\n", time.Duration(now)*time.Millisecond, d.seen.offset, d.tail.end.offset, next)
		}
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			span := func(key string) int64 {
				var s string
				td.ScanArgs(t, key, &s)
				v, err := time.ParseDuration(s)
				if err != nil {
					t.Fatal(err)
				}
				return v.Milliseconds()
			}
			number := func(key string) (n int64) {
				if td.HasArg(key) {
					td.ScanArgs(t, key, &n)
				}
				return n
			}
			switch td.Cmd {
			case "delay":
				d.delay = span("of")
			case "start": // with records in the log
				end := bound{offset: segment.Offset(number("records"))}
				d = delayMarks{delay: span("delay"), rest: end, restCame: now, tail: delayMark{end: end}}
				return fmt.Sprintf("the log is asked: %v\n", d.atRest(now))
			case "found":
				d.found(bound{offset: segment.Offset(number("first"))}, span("came"), now)
			case "append": // n records, one each step
				for range max(number("n"), 1) {
					before := d.tail.end
					d.appended(before, bound{offset: before.offset + 1}, now)
					if td.HasArg("every") {
						now += span("every")
					}
				}
			case "wait":
				now += span("for")
			case "marks":
				return fmt.Sprintf("%d groups remembered\n", len(d.marks))
			default:
				td.Fatalf(t, "unknown command %q", td.Cmd)
			}
			return look()
		})
	})
}

// Nothing is seen early, nothing later than a group after it is due, and what is seen stays, whatever the appends and the delay do.
func TestDelayMarksKeepTheirWord(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		d := delayMarks{delay: 1 + r.Int64N(100_000)}
		var came []int64 // append time by offset
		now, longest := int64(0), d.delay
		for range 2000 {
			switch now += r.Int64N(1 + d.delay/50); {
			case r.IntN(500) == 0:
				d.delay = 1 + r.Int64N(100_000)
				longest = max(longest, d.delay)
			case r.IntN(3) > 0:
				before := d.tail.end
				d.appended(before, bound{offset: before.offset + 1}, now)
				came = append(came, now)
			}
			was := d.seen.offset
			d.advance(now)
			if d.seen.offset < was {
				t.Fatalf("what was seen is gone: %d, then %d", was, d.seen.offset)
			}
			for o := was; o < d.seen.offset; o++ {
				if came[o]+d.delay > now {
					t.Fatalf("offset %d came at %d and was seen at %d, before %d ms were over", o, came[o], now, d.delay)
				}
			}
			group := max(longest/delayGroups, minDelayGroup)
			if o := int(d.seen.offset); o < len(came) && came[o]+d.delay+2*group < now { // twice: a group that was made for a longer delay
				t.Fatalf("offset %d came at %d and is not seen at %d, with a delay of %d ms", o, came[o], now, d.delay)
			}
			if ms, ok := d.next(); ok != (int(d.seen.offset) < len(came)) || ok && ms <= now {
				t.Fatalf("next is %d %v at %d with %d of %d seen", ms, ok, now, d.seen.offset, len(came))
			}
			if len(d.marks) > 2*delayGroups {
				t.Fatalf("%d marks", len(d.marks))
			}
		}
	}
}
