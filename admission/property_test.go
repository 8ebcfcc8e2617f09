package admission_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lagoon/admission"
)

func group(i int) admission.Subject {
	return admission.Subject{Kind: admission.Group, Name: fmt.Sprint("g", i)}
}

// failer is what testing.TB and rapid.T have in common here.
type failer interface {
	Helper()
	Fatal(args ...any)
}

func newScheduler(t failer, cfg admission.DeviceConfig, limits admission.LimitsConfig) (*admission.Scheduler, *admission.Limits) {
	t.Helper()
	l, err := admission.NewLimits(limits, epoch)
	if err != nil {
		t.Fatal(err)
	}
	s, err := admission.NewScheduler(cfg, l, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return s, l
}

type start struct {
	at    time.Time
	flow  admission.Subject
	bytes int64
}

// A cap lets pass at most rate·t + max(burst, largest request) in every interval, whatever the loads are.
func TestProperty_CapHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1<<20, 64<<20).Draw(t, "cap")
		s, l := newScheduler(t, admission.DeviceConfig{
			BytesPerSecond: rapid.SampledFrom([]int64{0, 100 << 20}).Draw(t, "device"), MaxInFlight: rapid.IntRange(1, 8).Draw(t, "slots"),
		}, admission.LimitsConfig{})
		if err := l.Configure(group(0), admission.Cap{BytesPerSecond: limit}); err != nil {
			t.Fatal(err)
		}
		var starts []start
		d := newDevice(s, 200<<20, epoch)
		d.onStart = func(req admission.Request, now time.Time) {
			if req.Flow == group(0) {
				starts = append(starts, start{now, req.Flow, req.Bytes})
			}
		}
		largest := limit * 2 / 5 // the burst
		for i := range 3 {
			size := rapid.Int64Range(64<<10, 8<<20).Draw(t, "size")
			if i == 0 {
				largest = max(largest, size)
			}
			d.add(&load{flow: group(i), topic: "t", size: size, outstanding: rapid.IntRange(1, 8).Draw(t, "outstanding"),
				think: time.Duration(rapid.IntRange(0, 50).Draw(t, "think")) * time.Millisecond})
		}
		if err := d.run(3 * time.Second); err != nil {
			t.Fatal(err)
		}
		for i := range starts {
			var sum int64
			for _, st := range starts[i:] {
				sum += st.bytes
				if most := int64(float64(limit)*st.at.Sub(starts[i].at).Seconds()) + largest + 1; sum > most {
					t.Fatalf("%d bytes in %s, at most %d", sum, st.at.Sub(starts[i].at), most)
				}
			}
		}
	})
}

// A capped flow whose cap is below its share gets it in every ten seconds, within 5 %, however many others saturate the device and
// whatever their weights and requests are; and they share the rest by weight.
func TestProperty_CapIsReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const window = 10 * time.Second
		speed := rapid.Int64Range(20e6, 300e6).Draw(t, "speed")
		cfg := admission.DeviceConfig{QuantumBytes: 4 << 20, MaxInFlight: rapid.IntRange(1, 8).Draw(t, "slots")}
		if rapid.Bool().Draw(t, "rotating") {
			cfg = admission.DeviceConfig{QuantumBytes: 24 << 20, MaxInFlight: 2, Rotating: true}
		}
		s, l := newScheduler(t, cfg, admission.LimitsConfig{})
		d := newDevice(s, speed, epoch)
		if cfg.Rotating {
			d.seek = 8 * time.Millisecond
		}
		weights, sum, file := []int{100}, 100, uint64(0)
		add := func(flow int, size int64, outstanding int) {
			file++
			d.add(&load{flow: group(flow), topic: "t", size: size, outstanding: outstanding, file: file, at: rapid.Int64Range(0, 1<<40).Draw(t, "at")})
		}
		others := rapid.IntRange(1, 4).Draw(t, "others")
		for i := range others {
			w := rapid.IntRange(50, 300).Draw(t, "weight")
			if err := l.Configure(group(i+1), admission.Cap{Weight: w}); err != nil {
				t.Fatal(err)
			}
			weights, sum = append(weights, w), sum+w
			size := rapid.Int64Range(speed/100, min(4<<20, speed/20)).Draw(t, "size") // 50 ms at most, and two are in flight
			for range 4 {
				add(i+1, size, 6)
			}
		}
		limit := int64(float64(speed) * 100 / float64(sum) * rapid.Float64Range(0.1, 0.6).Draw(t, "part of its share")) // seeks take their part
		if err := l.Configure(group(0), admission.Cap{BytesPerSecond: limit}); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			add(0, max(limit/8, 16<<10), 3)
		}
		got := func() []float64 {
			sums := make([]float64, others+1)
			for _, l := range d.loads {
				for i := range sums {
					if l.flow == group(i) {
						sums[i] += float64(l.got)
					}
				}
			}
			return sums
		}
		if err := d.run(window); err != nil { // first it finds out how fast the device is
			t.Fatal(err)
		}
		begin := got()
		for range 3 {
			before := got()[0]
			if err := d.run(window); err != nil {
				t.Fatal(err)
			}
			if part := (got()[0] - before) / (float64(limit) * window.Seconds()); part < 0.95 || part > 1.05 {
				t.Fatalf("%.3f of its cap", part)
			}
		}
		end := got()
		for i := 2; i <= others; i++ {
			ratio := (end[i] - begin[i]) / float64(weights[i]) / ((end[1] - begin[1]) / float64(weights[1]))
			if ratio < 0.9 || ratio > 1.1 {
				t.Fatalf("group %d has %.3f of what group 1 has, by weight", i, ratio)
			}
		}
	})
}

// Between two turns of a backlogged flow, every other flow gets at most the quanta of the rounds that the flow needs to
// save up for its request, and one more; also those that come and go and resume their turns.
func TestProperty_NoStarvation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const quantum = 1 << 20
		s, l := newScheduler(t, admission.DeviceConfig{QuantumBytes: quantum, MaxInFlight: rapid.IntRange(1, 4).Draw(t, "slots")}, admission.LimitsConfig{})
		flows := rapid.IntRange(2, 6).Draw(t, "flows")
		weights, sizes, backlogged := map[admission.Subject]int64{}, map[admission.Subject]int64{}, map[admission.Subject]bool{}
		d := newDevice(s, 100<<20, epoch)
		for i := range flows {
			weight := rapid.IntRange(20, 500).Draw(t, "weight")
			if err := l.Configure(group(i), admission.Cap{Weight: weight}); err != nil {
				t.Fatal(err)
			}
			size := rapid.Int64Range(32<<10, 6<<20).Draw(t, "size")
			weights[group(i)], sizes[group(i)] = int64(weight), size
			l := &load{flow: group(i), topic: "t", size: size}
			if i > 0 && rapid.Bool().Draw(t, "one at a time") {
				l.outstanding, l.think = 1, time.Duration(rapid.IntRange(0, 60).Draw(t, "think"))*time.Millisecond
			} else {
				l.outstanding = rapid.IntRange(5, 9).Draw(t, "outstanding") // more than slots: always backlogged
				backlogged[group(i)] = true
			}
			d.add(l)
		}
		since := map[admission.Subject]map[admission.Subject]int64{}
		for f := range sizes {
			since[f] = map[admission.Subject]int64{}
		}
		d.onStart = func(req admission.Request, now time.Time) {
			rounds := (sizes[req.Flow]+quantum*weights[req.Flow]/100-1)/(quantum*weights[req.Flow]/100) + 1
			for other, got := range since[req.Flow] {
				if most := rounds*(quantum*weights[other]/100) + sizes[other]; backlogged[req.Flow] && other != req.Flow && got > most {
					t.Fatalf("%s got %d bytes while %s waited, at most %d", other, got, req.Flow, most)
				}
			}
			since[req.Flow] = map[admission.Subject]int64{}
			for f := range since {
				since[f][req.Flow] += req.Bytes
			}
		}
		if err := d.run(3 * time.Second); err != nil {
			t.Fatal(err)
		}
		for f := range since {
			for other, got := range since[f] {
				rounds := (sizes[f]+quantum*weights[f]/100-1)/(quantum*weights[f]/100) + 1
				if most := rounds*(quantum*weights[other]/100) + sizes[other]; backlogged[f] && got > most && other != f {
					t.Fatalf("%s got %d bytes while %s still waits, at most %d", other, got, f, most)
				}
			}
		}
	})
}

// Backlogged flows share by weight.
func TestProperty_ShareByWeight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, l := newScheduler(t, admission.DeviceConfig{QuantumBytes: 1 << 20, BytesPerSecond: 100 << 20}, admission.LimitsConfig{})
		d := newDevice(s, 0, epoch)
		weights := []int{rapid.IntRange(50, 500).Draw(t, "weight a"), rapid.IntRange(50, 500).Draw(t, "weight b")}
		for i, w := range weights {
			if err := l.Configure(group(i), admission.Cap{Weight: w}); err != nil {
				t.Fatal(err)
			}
			d.add(&load{flow: group(i), topic: "t", size: rapid.Int64Range(128<<10, 4<<20).Draw(t, "size"), outstanding: 10})
		}
		if err := d.run(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		got := float64(d.loads[0].got) / float64(d.loads[0].got+d.loads[1].got)
		want := float64(weights[0]) / float64(weights[0]+weights[1])
		if got < want-0.02 || got > want+0.02 {
			t.Fatalf("share %.3f, want %.3f", got, want)
		}
	})
}

// While a slot is free and the device has budget, no flow without a cap waits; and the budget of a saturated device is used up.
func TestProperty_WorkConserving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]int64{0, 50 << 20}).Draw(t, "rate")
		s, l := newScheduler(t, admission.DeviceConfig{BytesPerSecond: rate, MaxInFlight: rapid.IntRange(1, 6).Draw(t, "slots")}, admission.LimitsConfig{})
		d := newDevice(s, 100<<20, epoch)
		capped := map[admission.Subject]bool{}
		for i := range rapid.IntRange(1, 5).Draw(t, "flows") {
			if i > 0 && rapid.Bool().Draw(t, "capped") {
				capped[group(i)] = true
				if err := l.Configure(group(i), admission.Cap{BytesPerSecond: 1 << 20}); err != nil {
					t.Fatal(err)
				}
			}
			d.add(&load{flow: group(i), topic: "t", size: rapid.Int64Range(64<<10, 4<<20).Draw(t, "size"), outstanding: rapid.IntRange(1, 12).Draw(t, "outstanding")})
		}
		var total int64
		d.onStart = func(req admission.Request, _ time.Time) { total += req.Bytes }
		for range 100 {
			if err := d.run(10 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			d.start()
			v := s.Snapshot(d.now)
			if rate > 0 || v.InFlight == v.MaxInFlight {
				continue
			}
			for _, f := range v.Flows {
				if f.Queued > 0 && !capped[f.Flow] {
					t.Fatalf("%s has %d queued, %d of %d slots in use", f.Flow, f.Queued, v.InFlight, v.MaxInFlight)
				}
			}
		}
		if rate > 0 && total < rate-8<<20 { // one second; at most two requests short
			t.Fatalf("%d bytes of %d used although a flow was backlogged", total, rate)
		}
	})
}

// Any sequence of calls keeps the books in order, gives every request out once, in the order of its stream, and ends with
// an empty queue.
func TestProperty_SchedulerBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, l := newScheduler(t, admission.DeviceConfig{
			BytesPerSecond: rapid.SampledFrom([]int64{0, 10 << 20}).Draw(t, "rate"), MaxInFlight: 3, MaxQueued: 40, MaxFlows: 4,
		}, admission.LimitsConfig{GlobalBytesPerSecond: rapid.SampledFrom([]int64{0, 20 << 20}).Draw(t, "global")})
		now, nextID := epoch, uint64(0)
		queued, inFlight := map[uint64]admission.Request{}, map[uint64]admission.Request{}
		newest := map[string]uint64{}
		take := func() (time.Duration, bool) {
			req, wait, ok := s.Next(now)
			if !ok {
				return wait, false
			}
			if queued[req.ID] != req {
				t.Fatalf("got %+v, queued %+v", req, queued[req.ID])
			}
			if stream := fmt.Sprint(req.Kind, req.Flow, req.Client, req.Topic); req.ID <= newest[stream] {
				t.Fatalf("%d after %d in %s", req.ID, newest[stream], stream)
			} else {
				newest[stream] = req.ID
			}
			delete(queued, req.ID)
			inFlight[req.ID] = req
			return 0, true
		}
		anyOf := func(m map[uint64]admission.Request) uint64 {
			return rapid.Uint64Range(0, nextID).Filter(func(id uint64) bool { _, ok := m[id]; return ok || len(m) == 0 }).Draw(t, "id")
		}
		t.Repeat(map[string]func(*rapid.T){
			"enqueue": func(t *rapid.T) {
				nextID++
				req := admission.Request{
					ID: nextID, Kind: admission.RequestKind(rapid.IntRange(0, 1).Draw(t, "kind")), Flow: group(rapid.IntRange(0, 5).Draw(t, "flow")),
					Topic: fmt.Sprint("t", rapid.IntRange(0, 2).Draw(t, "topic")), Client: fmt.Sprint("c", rapid.IntRange(0, 1).Draw(t, "client")),
					Bytes: rapid.Int64Range(1, 8<<20).Draw(t, "bytes"),
				}
				if s.Enqueue(req, now) == nil {
					queued[req.ID] = req
				}
			},
			"next": func(*rapid.T) { take() },
			"advance": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(-5, 400).Draw(t, "ms")) * time.Millisecond)
			},
			"done": func(t *rapid.T) {
				id := anyOf(inFlight)
				_, want := inFlight[id]
				if got := s.Done(id, rapid.Int64Range(-1, 9<<20).Draw(t, "bytes"), now); got != want {
					t.Fatalf("done %d: %v", id, got)
				}
				delete(inFlight, id)
			},
			"cancel": func(t *rapid.T) {
				id := anyOf(queued)
				_, want := queued[id]
				if got := s.Cancel(id); got != want {
					t.Fatalf("cancel %d: %v", id, got)
				}
				delete(queued, id)
			},
			"limit": func(t *rapid.T) {
				subjects := []admission.Subject{group(0), group(1), {Kind: admission.Topic, Name: "t0"}, {Kind: admission.Client, Name: "c0"}}
				sub := rapid.SampledFrom(subjects).Draw(t, "subject")
				o := admission.Override{Kind: sub.Kind, Name: sub.Name, BytesPerSecond: rapid.Int64Range(1<<20, 50<<20).Draw(t, "rate"), Expires: now.Add(time.Second)}
				if err := l.SetOverride(o, now); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if err := s.CheckInvariants(); err != nil {
					t.Fatal(err)
				}
				if v := s.Snapshot(now); v.Queued != len(queued) || v.InFlight != len(inFlight) || v.InFlight > v.MaxInFlight {
					t.Fatalf("%+v, want %d queued, %d in flight", v, len(queued), len(inFlight))
				}
			},
		})
		for steps := 0; len(queued)+len(inFlight) > 0; steps++ {
			if steps > 1000 {
				t.Fatalf("%d still queued, %d in flight", len(queued), len(inFlight))
			}
			if wait, ok := take(); !ok && wait > 0 {
				now = now.Add(wait)
			} else if !ok && len(inFlight) == 0 {
				t.Fatalf("%d queued, none in flight, and nothing to wait for", len(queued))
			}
			for id, req := range inFlight {
				s.Done(id, req.Bytes, now)
				delete(inFlight, id)
			}
		}
	})
}

// Any sequence of fetches keeps the registry's sums right, and the states what they promise.
func TestProperty_ReaderStates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := admission.Config{MaxReaders: 6}
		r, err := admission.NewReaders(cfg)
		if err != nil {
			t.Fatal(err)
		}
		now := epoch
		key := func(t *rapid.T) admission.ReaderKey {
			return admission.ReaderKey{Group: fmt.Sprint("g", rapid.IntRange(0, 1).Draw(t, "group")), Topic: "t", Partition: rapid.Int32Range(0, 4).Draw(t, "partition")}
		}
		t.Repeat(map[string]func(*rapid.T){
			"fetch": func(t *rapid.T) {
				behind := rapid.SampledFrom([]int64{-1, 0, 1 << 20, 100 << 20, 200 << 20, 300 << 20, 9 << 30}).Draw(t, "behind")
				age := rapid.SampledFrom([]time.Duration{-1, 0, 10 * time.Second, 40 * time.Second, time.Hour}).Draw(t, "age")
				end := int64(1 << 30)
				k := key(t)
				was, known := r.View(k, now)
				c := r.Observe(k, admission.Position{Offset: end - max(behind, 0)/1024, EndOffset: end, BehindBytes: behind, BehindAge: age}, now)
				old, outside := age < 0 || age > time.Minute, false
				outside = behind > 256<<20 && old
				fresh := !known || was.Class.State == admission.Stopped
				switch {
				case behind <= 0 && c.State != admission.Realtime:
					t.Fatalf("at the end, but %+v", c)
				case outside && c.State == admission.Realtime:
					t.Fatalf("outside the window, but %+v", c)
				case fresh && outside && c.State != admission.Lagging:
					t.Fatalf("first fetch outside the window, but %+v", c)
				case fresh && !old && c.State != admission.Realtime:
					t.Fatalf("first fetch inside the window, but %+v", c)
				case !fresh && was.Behind && behind > 128<<20 && age > 30*time.Second && c.State == admission.Realtime:
					t.Fatalf("above half of the window, but %+v after %+v", c, was.Class)
				case c.Changed != (!known || was.Class.State != c.State):
					t.Fatalf("changed %v: %s after %s", c.Changed, c.State, was.Class.State)
				}
			},
			"served": func(t *rapid.T) { r.Served(key(t), admission.Lane(rapid.IntRange(0, 4).Draw(t, "lane")), 1<<20, now) },
			"waited": func(t *rapid.T) { r.Waited(key(t), time.Second, admission.Limit{By: admission.LimitTier}, now) },
			"advance": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "s")) * time.Second)
				r.Tick(now)
			},
			"": func(t *rapid.T) {
				if err := r.CheckInvariants(); err != nil {
					t.Fatal(err)
				}
				for _, v := range r.Snapshot(now) {
					if v.Class.Text == "" || v.Class.Reason == "" || v.WaitRatio < 0 || v.WaitRatio > 1 || v.BytesPerSecond < 0 || v.LagRecords < 0 {
						t.Fatalf("%+v", v)
					}
				}
			},
		})
	})
}
