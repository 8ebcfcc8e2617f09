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
	r.Conclude()
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
	r.Conclude()
	return r
}

// repeated is a run of three repetitions. One p99 of the second is a stall, one role did not recover in the third, and what the admin API
// tells is missing in one.
func repeated() *Isolation {
	r := healthy()
	r.Label, r.Load.Repeats, r.Load.RecordBytes = "three", 3, 1024
	r.Device.Name = "loop1"
	once := r.Phases
	r.Phases = nil
	for n := 1; n <= 3; n++ {
		for _, p := range once {
			p.Repeat = n
			latency := map[string]Latency{}
			for role, l := range p.Latency {
				l.Ratio, l.P99 = nil, l.P99+float64(n)/10
				latency[role] = l
			}
			if p.Backlog != nil {
				b := *p.Backlog
				b.MBPerSec += float64(n)
				b.Gaps = int64(n - 1)
				p.Backlog = &b
				p.Recovery = map[string]*Recovery{Ack: {Seconds: float64(n), Recovered: true}, Tail: {Seconds: 60, Recovered: n < 3}}
				if n == 2 {
					l := latency[Ack]
					l.P99, l.Unfinished = 500, 2
					latency[Ack], p.Use.RealtimeRead = l, nil
				} else {
					p.Use.RealtimeRead = bytes64(int64(n) << 10)
				}
			}
			p.Latency = latency
			r.Phases = append(r.Phases, p)
		}
	}
	r.Conclude()
	return r
}

func TestMedians(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 2}, 2}, {[]float64{1, 9, 2, 4}, 3}} {
		if got := median(c.of, func(v *float64) float64 { return *v }); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
	r := repeated()
	if len(r.Medians) != 2 {
		t.Fatalf("%d medians", len(r.Medians))
	}
	m := r.Medians[1]
	if l := m.Latency[Ack]; math.Abs(l.P99-8.7) > 1e-9 || math.Abs(l.Ratio.P99-8.5/8.1) > 1e-9 || l.Unfinished != 2 {
		t.Errorf("a stall in one of three decides the median: %+v %+v", l, l.Ratio)
	}
	if v := m.Recovery[Ack]; v.Seconds != 2 || !v.Recovered {
		t.Errorf("recovery %+v", v)
	}
	if m.Backlog.MBPerSec != 132 || m.Backlog.Gaps != 3 || *m.Use.RealtimeRead != 2<<10 {
		t.Errorf("backlog %+v, real-time readers took %d bytes", m.Backlog, *m.Use.RealtimeRead)
	}
	if r.Whole() {
		t.Error("gaps in one repetition are not seen")
	}
	if len(healthy().Medians) != 0 {
		t.Error("one run has medians")
	}
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
			case "repeated":
				err = repeated().Text(&out)
			case "compare-repeated":
				err = Compare(&out, true, repeated(), healthy())
			case "compare":
				err = Compare(&out, d.HasArg("markdown"), healthy(), harmed())
			case "html":
				err = HTML(&out, healthy(), harmed())
			case "compare-tables":
				of := func(label string, rows ...map[string]string) *Table {
					return &Table{Tool: "lagoon-bench throughput", Label: label, Keys: []string{"mode", "partitions"}, Columns: []string{"mode", "partitions", "mb_per_second", "cpu"}, Rows: rows}
				}
				row := func(mode, partitions, rate, cpu string) map[string]string {
					return map[string]string{"mode": mode, "partitions": partitions, "mb_per_second": rate, "cpu": cpu}
				}
				err = CompareTables(&out, d.HasArg("markdown"), of("lagoon S sync", row("produce", "8", "590", "1.19"), row("consume", "8", "4000", "")),
					of("kafka S interval", row("produce", "8", "814", "1.62"), row("produce", "64", "807", "0")))
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

// TestTablesComeBack: what compare reads is what the commands write, and nothing else.
func TestTablesComeBack(t *testing.T) {
	want := &Table{Tool: "lagoon-bench throughput", Format: Format, Keys: []string{"mode"}, Columns: []string{"mode", "cpu"}, Rows: []map[string]string{{"mode": "produce"}}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseTable(text); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"tool":"fio","columns":["a"]}`, `{"tool":"lagoon-bench throughput","columns":["a"],"format":2}`, `{"tool":"lagoon-bench throughput","format":1}`} {
		if _, err := ParseTable([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a table", bad)
		}
	}
	other := *want
	other.Tool = "lagoon-bench partitions"
	if CompareTables(io.Discard, false, want, &other) == nil {
		t.Error("tables of two commands stand side by side")
	}
}

// TestInterruptedTableSaysSo wherever it is shown: rows that are missing cannot be seen.
func TestInterruptedTableSaysSo(t *testing.T) {
	cut := &Table{Tool: "lagoon-bench partitions", Label: "cut", Interrupted: true, Keys: []string{"partitions"}, Columns: []string{"partitions", "cpu"},
		Rows: []map[string]string{{"partitions": "1", "cpu": "2"}}}
	whole := *cut
	whole.Label, whole.Interrupted = "whole", false
	var text, side strings.Builder
	if err := errors.Join(cut.Text(&text), CompareTables(&side, false, cut, &whole)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "note: interrupted") {
		t.Errorf("text:\n%s", &text)
	}
	if !strings.Contains(side.String(), "* cut: interrupted") || strings.Contains(side.String(), "* whole") {
		t.Errorf("compare:\n%s", &side)
	}
}

// TestLabelsStayInTheirCells of a Markdown table.
func TestLabelsStayInTheirCells(t *testing.T) {
	r := healthy()
	r.Label = "sync|S"
	var out strings.Builder
	if err := Compare(&out, true, r); err != nil || !strings.Contains(out.String(), `|  | sync\|S |`) {
		t.Errorf("%v\n%s", err, &out)
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
