package admission_test

import (
	"fmt"
	"time"

	"lagoon/admission"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// load is one party that keeps a number of requests outstanding on the simulated device.
type load struct {
	kind        admission.RequestKind
	flow        admission.Subject
	client      string
	topic       string
	size        int64
	outstanding int
	think       time.Duration // between a request's end and the next one
	actual      int64         // what the device really reads of size; 0: all
	got         int64         // bytes done
	longestGap  time.Duration // longest time without a start
	lastStart   time.Time
	file        uint64 // on a rotating disk: it reads this file from at on
	at          int64
}

// device simulates a disk with one head: requests in flight are served in the order of their start at a fixed speed.
// Everything is deterministic.
type device struct {
	s        *admission.Scheduler
	speed    int64 // bytes per second, 0: instant
	now      time.Time
	free     time.Time
	inFlight []running
	arrivals []arrival
	loads    []*load
	nextID   uint64
	byID     map[uint64]*load
	onStart  func(req admission.Request, now time.Time)

	seek    time.Duration // what a request costs that does not begin where the last one ended
	headAt  int64
	headOn  uint64
	seeks   int
	visited []uint64 // files, in the order in which the head came to them
}

type running struct {
	req  admission.Request
	ends time.Time
}

type arrival struct {
	at time.Time
	l  *load
}

func newDevice(s *admission.Scheduler, speed int64, now time.Time) *device {
	return &device{s: s, speed: speed, now: now, free: now, byID: map[uint64]*load{}}
}

func (d *device) add(l *load) {
	d.loads = append(d.loads, l)
	l.lastStart = d.now
	for range l.outstanding {
		d.arrivals = append(d.arrivals, arrival{d.now, l})
	}
}

// run lets the device work for a while. It stops with an error if the scheduler refuses a request or spins.
func (d *device) run(dur time.Duration) error {
	end := d.now.Add(dur)
	for steps := 0; ; steps++ {
		if steps > 2_000_000 {
			return fmt.Errorf("no progress at %s", d.now.Sub(epoch))
		}
		d.finish()
		if err := d.arrive(); err != nil {
			return err
		}
		wait := d.start()
		next := end
		earlier := func(t time.Time) {
			if t.Before(next) {
				next = t
			}
		}
		if wait > 0 {
			earlier(d.now.Add(wait))
		}
		for _, r := range d.inFlight {
			earlier(r.ends)
		}
		for _, a := range d.arrivals {
			earlier(a.at)
		}
		if !next.Before(end) {
			d.now = end
			return nil
		}
		d.now = next
	}
}

func (d *device) start() (wait time.Duration) {
	for {
		req, wait, ok := d.s.Next(d.now)
		if !ok {
			return wait
		}
		begins := d.now
		if d.free.After(begins) {
			begins = d.free
		}
		d.free = begins
		if d.speed > 0 {
			bytes := req.Bytes
			if l := d.byID[req.ID]; l.actual > 0 {
				bytes = l.actual
			}
			d.free = begins.Add(time.Duration(float64(bytes) / float64(d.speed) * float64(time.Second)))
		}
		if d.seek > 0 && (req.File != d.headOn || req.Position != d.headAt) {
			d.free = d.free.Add(d.seek)
			d.seeks++
			d.visited = append(d.visited, req.File)
		}
		d.headOn, d.headAt = req.File, req.Position+req.Bytes
		d.inFlight = append(d.inFlight, running{req, d.free})
		l := d.byID[req.ID]
		l.longestGap = max(l.longestGap, d.now.Sub(l.lastStart))
		l.lastStart = d.now
		if d.onStart != nil {
			d.onStart(req, d.now)
		}
	}
}

func (d *device) finish() {
	rest := d.inFlight[:0]
	for _, r := range d.inFlight {
		if r.ends.After(d.now) {
			rest = append(rest, r)
			continue
		}
		l := d.byID[r.req.ID]
		delete(d.byID, r.req.ID)
		bytes := r.req.Bytes
		if l.actual > 0 {
			bytes = l.actual
		}
		d.s.Done(r.req.ID, bytes, d.now)
		l.got += bytes
		d.arrivals = append(d.arrivals, arrival{d.now.Add(l.think), l})
	}
	d.inFlight = rest
}

func (d *device) arrive() error {
	rest := d.arrivals[:0]
	for _, a := range d.arrivals {
		if a.at.After(d.now) {
			rest = append(rest, a)
			continue
		}
		d.nextID++
		d.byID[d.nextID] = a.l
		err := d.s.Enqueue(admission.Request{
			ID: d.nextID, Kind: a.l.kind, Flow: a.l.flow, Client: a.l.client, Topic: a.l.topic, Bytes: a.l.size,
			File: a.l.file, Position: a.l.at,
		}, d.now)
		if a.l.file != 0 {
			a.l.at += a.l.size
		}
		if err != nil {
			return err
		}
	}
	d.arrivals = rest
	return nil
}
