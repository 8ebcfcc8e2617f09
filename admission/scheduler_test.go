package admission_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"lagoon/admission"
)

// A flow cannot shake off its debt by being forgotten, and buckets of flows long gone do not pile up.
func TestLimits_ManyFlowsStayBounded(t *testing.T) {
	s, l := newScheduler(t, admission.DeviceConfig{MaxFlows: 16}, admission.LimitsConfig{FlowBytesPerSecond: 1 << 20})
	now := epoch
	read := func(flow int, bytes int64) (time.Duration, bool) {
		t.Helper()
		if err := s.Enqueue(admission.Request{ID: 1, Flow: group(flow), Topic: "t", Bytes: bytes}, now); err != nil {
			t.Fatal(err)
		}
		_, wait, ok := s.Next(now)
		s.Done(1, bytes, now)
		s.Cancel(1)
		return wait, ok
	}
	if _, ok := read(0, 1<<30); !ok { // a debt of 1,024 seconds
		t.Fatal("the first read of a flow has to wait")
	}
	for i := range 10_000 {
		now = now.Add(100 * time.Millisecond)
		if _, ok := read(i+1, 64<<10); !ok {
			t.Fatalf("flow %d has to wait", i)
		}
	}
	if n := len(l.Snapshot(now)); n > 2048 {
		t.Fatalf("%d buckets for flows of which a few are active", n)
	}
	if wait, ok := read(0, 64<<10); ok || wait < 20*time.Second {
		t.Fatalf("the debt is forgiven: %v, wait %s", ok, wait)
	}
}

func TestScheduler_QueueIsBounded(t *testing.T) {
	s, _ := newScheduler(t, admission.DeviceConfig{MaxFlows: 2, MaxQueued: 3}, admission.LimitsConfig{})
	enqueue := func(id uint64, flow int) error {
		return s.Enqueue(admission.Request{ID: id, Flow: group(flow), Topic: "t", Bytes: 1}, epoch)
	}
	for i, want := range []error{nil, nil, admission.ErrQueueFull} {
		if err := enqueue(uint64(i), i); !errors.Is(err, want) {
			t.Fatalf("flow %d: %v, want %v", i, err, want)
		}
	}
	if err := enqueue(10, 0); err != nil {
		t.Fatal(err)
	}
	if err := enqueue(11, 0); !errors.Is(err, admission.ErrQueueFull) {
		t.Fatal(err)
	}
	if err := enqueue(0, 0); !errors.Is(err, admission.ErrDuplicateID) {
		t.Fatal(err)
	}
	// A flow that is done makes room for another one.
	for s.Cancel(0) || s.Cancel(10) {
	}
	if err := s.Enqueue(admission.Request{ID: 12, Flow: group(7), Topic: "t", Bytes: 1}, epoch.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
}

// A changed budget holds at once, and an unlimited one knows no debt.
func TestScheduler_SetBudget(t *testing.T) {
	s, _ := newScheduler(t, admission.DeviceConfig{BytesPerSecond: 10 << 20}, admission.LimitsConfig{})
	d := newDevice(s, 0, epoch)
	l := &load{flow: group(0), topic: "t", size: 1 << 20, outstanding: 4}
	d.add(l)
	for _, step := range []struct{ rate, least, most int64 }{
		{10 << 20, 99 << 20, 106 << 20}, {40 << 20, 395 << 20, 405 << 20}, {5 << 20, 48 << 20, 55 << 20},
	} {
		s.SetBudget(admission.Budget{BytesPerSecond: step.rate, Slots: 4}, d.now)
		before := l.got
		if err := d.run(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		if got := l.got - before; got < step.least || got > step.most {
			t.Fatalf("at %d per second: %d bytes in 10 s", step.rate, got)
		}
	}
	s.SetBudget(admission.Budget{Slots: 8}, d.now)
	if req, wait, ok := s.Next(d.now); !ok {
		t.Fatalf("unlimited, and yet %v waits %s", req, wait)
	}
}

// A client's own cap holds for it as a flow and inside a group together.
func TestScheduler_ClientCapSpansFlows(t *testing.T) {
	s, l := newScheduler(t, admission.DeviceConfig{}, admission.LimitsConfig{FlowBytesPerSecond: 500 << 20})
	client := admission.Subject{Kind: admission.Client, Name: "c"}
	if err := l.Configure(client, admission.Cap{BytesPerSecond: 20 << 20}); err != nil {
		t.Fatal(err)
	}
	d := newDevice(s, 0, epoch)
	alone := &load{flow: client, client: "c", topic: "t", size: 1 << 20, outstanding: 4}
	inGroup := &load{flow: group(0), client: "c", topic: "t", size: 1 << 20, outstanding: 4}
	d.add(alone)
	d.add(inGroup)
	if err := d.run(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if sum := alone.got + inGroup.got; sum < 190<<20 || sum > 210<<20 {
		t.Fatalf("%d + %d bytes in 10 s at 20 MiB/s", alone.got, inGroup.got)
	}
}

// A group and a client of the same name are two flows with limits of their own.
func TestScheduler_GroupAndClientOfOneName(t *testing.T) {
	s, l := newScheduler(t, admission.DeviceConfig{}, admission.LimitsConfig{})
	g, c := admission.Subject{Kind: admission.Group, Name: "x"}, admission.Subject{Kind: admission.Client, Name: "x"}
	if err := l.SetOverride(admission.Override{Kind: admission.Group, Name: "x", BytesPerSecond: 1 << 20}, epoch); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(4) {
		flow := g
		if id%2 == 1 {
			flow = c
		}
		if err := s.Enqueue(admission.Request{ID: id, Flow: flow, Topic: "t", Bytes: 1 << 20}, epoch); err != nil {
			t.Fatal(err)
		}
	}
	started := map[admission.Subject]int{}
	for {
		req, _, ok := s.Next(epoch)
		if !ok {
			break
		}
		started[req.Flow]++
	}
	if started[g] != 1 || started[c] != 2 {
		t.Fatalf("%v", started)
	}
	if limit := s.LimitedBy(g, epoch); limit.By != admission.LimitOverride || limit.String() != "override:group:x" {
		t.Fatalf("%+v", limit)
	}
}

// Waits are booked to the exact moment, by what held the request back last.
func TestScheduler_WaitsByLimit(t *testing.T) {
	s, l := newScheduler(t, admission.DeviceConfig{MaxInFlight: 1}, admission.LimitsConfig{})
	if err := l.Configure(group(0), admission.Cap{BytesPerSecond: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	now, id := epoch, uint64(0)
	enqueue := func(flow admission.Subject) {
		t.Helper()
		id++
		if err := s.Enqueue(admission.Request{ID: id, Flow: flow, Topic: "t", Bytes: 1 << 20}, now); err != nil {
			t.Fatal(err)
		}
	}
	var capped time.Duration
	for range 10 {
		enqueue(group(0))
		for {
			_, wait, ok := s.Next(now)
			if ok {
				break
			}
			capped += wait
			now = now.Add(wait)
		}
		s.Done(id, 1<<20, now)
	}
	enqueue(group(1))
	if _, _, ok := s.Next(now); !ok {
		t.Fatal("an idle device starts nothing")
	}
	enqueue(group(1))
	if _, _, ok := s.Next(now); ok {
		t.Fatal("a device with one slot starts two")
	}
	now = now.Add(3 * time.Second)
	s.Done(id-1, 1<<20, now)
	if _, _, ok := s.Next(now); !ok {
		t.Fatal("the slot is free, and nothing starts")
	}
	want := map[admission.Subject]map[admission.LimitScope]time.Duration{group(0): {admission.LimitReader: capped}, group(1): {admission.LimitTier: 3 * time.Second}}
	if capped < time.Second {
		t.Fatalf("10 MiB at 1 MiB/s waited %s", capped)
	}
	for _, f := range s.Snapshot(now).Flows {
		for i, by := range admission.Scopes {
			if f.Waited[i] != want[f.Flow][by] {
				t.Errorf("%s waited %s for %s, want %s", f.Flow, f.Waited[i], by, want[f.Flow][by])
			}
		}
		delete(want, f.Flow)
	}
	if len(want) > 0 {
		t.Errorf("no flows %v", want)
	}
}

// The wait that Next returns is exact: not a moment earlier, and then at once.
func TestScheduler_WaitIsExact(t *testing.T) {
	for _, rate := range []int64{16 << 10, 1<<20 + 7, 999_999_937, 1 << 40} {
		s, _ := newScheduler(t, admission.DeviceConfig{BytesPerSecond: rate, BurstBytes: 1 << 20}, admission.LimitsConfig{})
		now := epoch
		for id := range uint64(20) {
			if err := s.Enqueue(admission.Request{ID: id, Flow: group(0), Topic: "t", Bytes: 3 << 20}, now); err != nil {
				t.Fatal(err)
			}
			_, wait, ok := s.Next(now)
			if ok == (id > 0) {
				t.Fatalf("rate %d, request %d: ok %v", rate, id, ok)
			}
			if !ok {
				if _, _, early := s.Next(now.Add(wait - time.Nanosecond)); early {
					t.Fatalf("rate %d, request %d: earlier than %s", rate, id, wait)
				}
				now = now.Add(wait)
				if _, again, ok := s.Next(now); !ok {
					t.Fatalf("rate %d, request %d: %s more after %s", rate, id, again, wait)
				}
			}
			s.Done(id, 3<<20, now)
		}
		if elapsed, want := now.Sub(epoch).Seconds(), 19*3*float64(1<<20)/float64(rate); elapsed < want*0.999 || elapsed > want*1.001+1e-6 {
			t.Fatalf("rate %d: %f s, want %f", rate, elapsed, want)
		}
	}
}

func TestOverrides_Bounded(t *testing.T) {
	var set admission.Overrides
	for i := range admission.MaxOverrides {
		o := admission.Override{Kind: admission.Group, Name: fmt.Sprint(i), Weight: 1, Expires: epoch.Add(time.Duration(i+1) * time.Second)}
		if err := set.Set(o, epoch); err != nil {
			t.Fatal(err)
		}
	}
	more := admission.Override{Kind: admission.Group, Name: "more", Weight: 1}
	if err := set.Set(more, epoch); !errors.Is(err, admission.ErrTooManyOverrides) {
		t.Fatal(err)
	}
	if err := set.Set(more, epoch.Add(time.Second)); err != nil { // one has expired by then
		t.Fatal(err)
	}
	if _, ok := set.Get(admission.Subject{Kind: admission.Group, Name: "1"}, epoch.Add(2*time.Second)); ok {
		t.Fatal("an expired override is in force")
	}
	if n := len(set.List(epoch.Add(time.Hour * 24))); n != 1 {
		t.Fatalf("%d overrides left, want the one without an end", n)
	}
}

// OldestWait is the device's part: what a cap holds back is not counted, nor what is in flight.
func TestScheduler_OldestWait(t *testing.T) {
	s, l := newScheduler(t, admission.DeviceConfig{MaxInFlight: 1}, admission.LimitsConfig{})
	if err := l.SetOverride(admission.Override{Kind: admission.Group, Name: group(1).Name, BytesPerSecond: 16 << 10}, epoch); err != nil {
		t.Fatal(err)
	}
	at := func(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }
	enqueue := func(id uint64, flow int, kind admission.RequestKind, seconds int) {
		t.Helper()
		if err := s.Enqueue(admission.Request{ID: id, Flow: group(flow), Topic: "t", Bytes: 1 << 20, Kind: kind}, at(seconds)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(seconds, oldest int) {
		t.Helper()
		if got := s.OldestWait(at(seconds)); got != time.Duration(oldest)*time.Second {
			t.Errorf("at %d s: %v, want %d s", seconds, got, oldest)
		}
	}
	next := func(seconds int) (id uint64) {
		t.Helper()
		r, _, _ := s.Next(at(seconds))
		return r.ID
	}
	want(0, 0)
	enqueue(1, 1, admission.KindRead, 0)
	if id := next(0); id != 1 {
		t.Fatalf("%d is started", id)
	}
	s.Done(1, 1<<20, at(1))
	enqueue(2, 1, admission.KindRead, 1) // in debt for a minute
	if id := next(2); id != 0 {
		t.Fatalf("%d is started in spite of its cap", id)
	}
	want(5, 0)
	enqueue(3, 2, admission.KindRead, 6)
	if id := next(6); id != 3 {
		t.Fatalf("%d is started", id)
	}
	want(7, 0)
	enqueue(5, 3, admission.KindMigration, 7)
	enqueue(4, 2, admission.KindRead, 8)
	if id := next(8); id != 0 || s.InFlight(admission.KindRead) != 1 || s.InFlight(admission.KindMigration) != 0 {
		t.Fatalf("%d is started beside the one that the device takes", id)
	}
	want(9, 2)
}
