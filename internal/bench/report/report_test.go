package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

func number64(v float64) *float64 { return &v }
func bytes64(v int64) *int64      { return &v }

// healthy is a run in which everything was measured.
func healthy() *Isolation {
	r := &Isolation{
		Tool: "lagoon-bench isolation", Format: Format, Label: "one", Started: time.Unix(1_700_000_000, 0),
		Load: Load{Brokers: []string{"a:1"}, LiveBytesPerSec: 20 << 20, LivePartitions: 8, SlowBytesPerSec: 10 << 20, SlowPartitions: 4,
			OldBytes: 12 << 30, OldPartitions: 4, PhaseSeconds: 2, BehindSeconds: 10, BacklogRange: "spread"},
		Machine: Machine{CPUs: 2, Kernel: "6.18.0"},
		Device:  &Device{MBPerSec: 150},
		Backlog: []float64{0, 0, 0, 120, 140},
	}
	latency := func(p50, p99 float64) Latency {
		return Latency{Count: 1000, P50: p50, P99: p99, P999: p99 * 2, Max: p99 * 3}
	}
	r.Phases = []Phase{
		{Name: "base", FromSeconds: 0, ToSeconds: 2, Latency: map[string]Latency{Ack: latency(3, 8), Tail: latency(3, 9), Delayed: latency(5, 11)},
			Use: Use{GeneratorCores: 0.2, BrokerCores: number64(0.3), BrokerCPU: number64(0.6), AnonBytes: bytes64(20 << 20), RealtimeRead: bytes64(0),
				Devices: []DeviceUse{{Name: "loop1", ReadBytes: 4096}}, HotWindow: map[string]float64{"live": 1, "slow": 0.999}}},
		{Name: "x4", FromSeconds: 3, ToSeconds: 5, BacklogReaders: 4, Latency: map[string]Latency{Ack: latency(3, 8.4), Tail: latency(3, 9.9), Delayed: latency(5, 11)},
			Backlog:  &Backlog{Bytes: 260e6, MBPerSec: 130, EachMBPerS: []float64{30, 32.5, 32.5, 35}, Spread: 0.154},
			Recovery: map[string]*Recovery{Ack: {Seconds: 0, Recovered: true}, Tail: {Seconds: 1, Recovered: true}, Delayed: {Seconds: 0, Recovered: true}},
			Use: Use{GeneratorCores: 0.21, BrokerCores: number64(0.4), AnonBytes: bytes64(84 << 20), RealtimeRead: bytes64(0), ReadPerServed: number64(1.01),
				Devices: []DeviceUse{{Name: "loop1", ReadBytes: 262e6}}, HotWindow: map[string]float64{"live": 1, "slow": 0.998}}},
	}
	for _, role := range []string{Ack, Tail, Delayed} {
		s := Series{Role: role}
		for i, p99 := range []float64{8, 8.2, 9, 8.4, 8.3} {
			s.Points = append(s.Points, Point{Second: i, Count: 500, P50: 3, P99: p99, Max: 20})
		}
		r.Series = append(r.Series, s)
	}
	for _, role := range []string{Tail, Delayed} {
		r.Checks = append(r.Checks, Check{Role: role, Topic: "live", Produced: 5000, Read: 5000})
	}
	r.SetRatios()
	return r
}

// harmed is a run on a broker that stalled and lost records, of which little could be measured.
func harmed() *Isolation {
	r := healthy()
	r.Label, r.Device, r.Notes = "two <b>", nil, []string{"the page cache was not looked at: give --data-dir"}
	for i := range r.Phases {
		p := &r.Phases[i]
		p.Use = Use{GeneratorCores: 0.2}
		if p.Backlog != nil {
			p.Backlog.OfLimit = nil
			p.Backlog.EachMBPerS, p.Backlog.Spread = []float64{17}, 0
		}
	}
	p := &r.Phases[1]
	p.Latency = map[string]Latency{Ack: {Count: 1000, P50: 17000, P99: 28900, P999: 30000, Max: 31000},
		Tail: {Count: 1000, Unfinished: 400, P50: 20000, P99: 47600, P999: 48000, Max: 49000}, Delayed: {}}
	p.Recovery = map[string]*Recovery{Ack: {Seconds: 15, Recovered: true}, Tail: {Seconds: 60}}
	r.Phases = append(r.Phases, Phase{Name: "after", FromSeconds: 6, ToSeconds: 8, Latency: map[string]Latency{Ack: {Count: 10, P50: 1, P99: 2, P999: 3, Max: 4}}, Use: Use{GeneratorCores: 0.2}})
	r.Checks[0].Lost, r.Checks[0].Read = 3, 4997
	r.SetRatios()
	return r
}

// TestGolden: what people get to see.
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			var err error
			switch d.Cmd {
			case "text":
				if err = healthy().Text(&out); err == nil {
					out.WriteString("\n")
					err = harmed().Text(&out)
				}
			case "compare":
				err = Compare(&out, d.HasArg("markdown"), healthy(), harmed())
			case "html":
				err = HTML(&out, healthy(), harmed())
			case "table":
				err = (&Table{Columns: []string{"partitions", "mb_per_second", "cpu"}, Rows: []map[string]string{
					{"partitions": "1", "mb_per_second": "247", "cpu": "1.85"}, {"partitions": "64", "mb_per_second": "310"}}, Notes: []string{"a note"}}).Text(&out)
			default:
				t.Fatalf("unknown command %s", d.Cmd)
			}
			if err != nil {
				t.Fatal(err)
			}
			return out.String()
		})
	})
}

func TestJSONComesBack(t *testing.T) {
	want := healthy()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseIsolation(text)
	if err != nil {
		t.Fatal(err)
	}
	got.Started = want.Started // the same moment in another zone
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, bad := range []string{"", "{}", "[]", `{"tool":"fio"}`, `{"tool":"lagoon-bench isolation","format":2}`} {
		if _, err := ParseIsolation([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a result", bad)
		}
	}
}

func TestRatios(t *testing.T) {
	r := harmed()
	if q := r.Phases[1].Latency[Ack].Ratio; q == nil || math.Abs(q.P99-28900.0/8) > 1e-9 {
		t.Errorf("ack: %+v", q)
	}
	if l := r.Phases[1].Latency[Delayed]; l.Ratio != nil {
		t.Errorf("a role without records has ratios: %+v", l)
	}
	if r.Whole() || !healthy().Whole() {
		t.Error("lost records are not told from none")
	}
	if o := healthy().Phases[1].Backlog.OfLimit; o == nil || math.Abs(*o-130.0/150) > 1e-9 {
		t.Errorf("of the device's limit: %v", o)
	}
}

// TestPageIsWellFormed: every chart is XML, and values at the edges leave no NaN in it.
func TestPageIsWellFormed(t *testing.T) {
	empty := &Isolation{Label: "nothing"}
	zero := healthy()
	for i := range zero.Series {
		for j := range zero.Series[i].Points {
			zero.Series[i].Points[j].P50, zero.Series[i].Points[j].P99 = 0, 0
		}
	}
	for i, runs := range [][]*Isolation{{healthy()}, {healthy(), harmed()}, {empty}, {zero}} {
		var page strings.Builder
		if err := HTML(&page, runs...); err != nil {
			t.Fatal(err)
		}
		text := page.String()
		if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") || strings.Contains(text, "<b>") {
			t.Errorf("page %d has a value that cannot be drawn, or a label that was not escaped", i)
		}
		for n, svg := range strings.Split(text, "<svg")[1:] {
			d := xml.NewDecoder(strings.NewReader("<svg" + svg[:strings.Index(svg, "</svg>")] + "</svg>"))
			for {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Errorf("page %d, chart %d: %v", i, n, err)
					break
				}
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 20 << 20: "20.0 MiB", 12 << 30: "12.0 GiB", 262e6: "250 MiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	if got := fmt.Sprint(number(1000), " ", number(0.1), " ", number(10)); got != "1 k 0.1 10" {
		t.Errorf("numbers %s", got)
	}
}
