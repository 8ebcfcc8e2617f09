package admission_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"lagoon/admission"
)

// doomed is a log that retention deletes from the front, segment by segment.
type doomed struct {
	load        *load
	size        int64
	deletedAt   []time.Time
	gone        int   // segments deleted
	lost        int64 // bytes that were deleted unread
	firstReadAt int64 // of load.got when the log began
}

func (d *doomed) position() int64 { return d.load.got - d.firstReadAt + d.lost }

func (d *doomed) retain(now time.Time) {
	for ; d.gone < len(d.deletedAt) && !d.deletedAt[d.gone].After(now); d.gone++ {
		d.lost += max(0, int64(d.gone+1)*d.size-d.position())
	}
}

func (d *doomed) deadlines(now time.Time) (out []admission.Deadline) {
	for k := d.gone; k < len(d.deletedAt); k++ {
		if left := int64(k+1)*d.size - d.position(); left > 0 {
			out = append(out, admission.Deadline{Bytes: left, In: d.deletedAt[k].Sub(now)})
		}
	}
	return out
}

func (w *world) race(a args) { w.races = admission.NewRaces(w.limits, a.word(0) == "on") }

func (w *world) log(a args) {
	sub, topic := a.subject(0), a.Str("topic", "t")
	for _, l := range w.dev.loads {
		if l.flow != sub || l.topic != topic {
			continue
		}
		d := &doomed{load: l, size: a.bytes("size"), firstReadAt: l.got}
		for k := range a.number("segments") {
			d.deletedAt = append(d.deletedAt, w.now.Add(a.duration("first")+time.Duration(k)*a.duration("every")))
		}
		w.logs[l] = d
		return
	}
	a.Fatalf("no load of %s on %s", sub, topic)
}

func (w *world) compete(a args) {
	got, lost := map[*load]int64{}, map[*load]int64{}
	for _, l := range w.dev.loads {
		got[l] = l.got
		if d := w.logs[l]; d != nil {
			lost[l] = d.lost
		}
	}
	d := a.durationAt(0)
	for range int(d / time.Second) {
		if w.failed(w.dev.run(time.Second)) {
			return
		}
		w.now = w.dev.now
		w.raceTick()
	}
	for _, l := range w.dev.loads {
		line := fmt.Sprintf("%s/%s: %.1f MiB/s", l.flow, l.topic, float64(l.got-got[l])/(1<<20)/d.Seconds())
		if doom := w.logs[l]; doom != nil {
			size := doom.size * int64(len(doom.deletedAt))
			line += fmt.Sprintf(", lost %s (%.1f%% of its log)", admission.Bytes(doom.lost-lost[l]), 100*float64(doom.lost-lost[l])/float64(size))
		}
		fmt.Fprintln(&w.out, line)
	}
}

// raceTick is a second of a store's life: retention, then the watch on it.
func (w *world) raceTick() {
	var racers []admission.Racer
	for _, l := range w.dev.loads {
		doom := w.logs[l]
		if doom == nil {
			continue
		}
		doom.retain(w.now)
		key := admission.ReaderKey{Client: cmp.Or(l.client, l.flow.Name), Topic: l.topic}
		if l.flow.Kind == admission.Group {
			key.Group = l.flow.Name
		}
		racers = append(racers, admission.Racer{Key: key, Device: w.dev.s.Config().Name, ReadBytes: l.got, Deadlines: doom.deadlines(w.now)})
	}
	for _, e := range w.races.Tick(racers, []admission.DeviceView{w.dev.s.Snapshot(w.now)}, w.now) {
		verb := "races"
		if e.Over {
			verb = "is out"
		}
		fmt.Fprintf(&w.out, "%s %s %s: it %s\n", w.now.Sub(epoch), e.Flow, verb, e.Text)
	}
}

func (w *world) raceViews(args) {
	for _, v := range w.races.Snapshot() {
		fmt.Fprintf(&w.out, "%s %s: %s\n", v.Flow, v.Topic, v.Text)
	}
	if w.out.Len() == 0 {
		fmt.Fprintln(&w.out, "none")
	}
}

// Whatever the loads, deadlines and weights: boosts stay within their bounds, no flow stands still, and what is told is
// consistent.
func TestRaceProperties(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		w := newWorld(t)
		s := must(admission.NewScheduler(admission.DeviceConfig{Name: "hdd", MaxInFlight: 1 + rng.IntN(8)}, w.limits, w.now))(t)
		w.dev = newDevice(s, int64(50+rng.IntN(200))<<20, w.now)
		w.races = admission.NewRaces(w.limits, true)
		for i := range 2 + rng.IntN(5) {
			flow := admission.Subject{Kind: admission.Group, Name: fmt.Sprint("g", i)}
			if rng.IntN(3) == 0 {
				if err := w.limits.Configure(flow, admission.Cap{Weight: 50 + rng.IntN(400)}); err != nil {
					t.Fatal(err)
				}
			}
			l := &load{flow: flow, topic: "t", size: 1 << 20, outstanding: 8}
			w.dev.add(l)
			if rng.IntN(2) == 0 {
				d := &doomed{load: l, size: int64(1+rng.IntN(64)) << 20}
				for k := range 1 + rng.IntN(100) {
					d.deletedAt = append(d.deletedAt, w.now.Add(time.Duration((k+1)*rng.IntN(3000))*time.Millisecond))
				}
				for k := 1; k < len(d.deletedAt); k++ {
					if d.deletedAt[k].Before(d.deletedAt[k-1]) {
						d.deletedAt[k] = d.deletedAt[k-1]
					}
				}
				w.logs[l] = d
			}
		}
		before := map[*load]int64{}
		for second := range 60 {
			if err := w.dev.run(time.Second); err != nil {
				t.Fatal(err)
			}
			w.now = w.dev.now
			w.raceTick()
			for _, f := range w.dev.s.Snapshot(w.now).Flows {
				if f.Weight < 1 || f.Weight > admission.MaxWeight {
					t.Fatalf("%s weighs %d", f.Flow, f.Weight)
				}
			}
			for _, v := range w.races.Snapshot() {
				if v.Weight < v.Own || v.LossBytes < 0 || v.LostAnyway < 0 || v.Text == "" {
					t.Fatalf("%+v", v)
				}
			}
			if second%20 == 19 {
				for _, l := range w.dev.loads {
					if l.got == before[l] {
						t.Fatalf("%s got nothing for 20 s", l.flow)
					}
					before[l] = l.got
				}
			}
		}
	}
}
