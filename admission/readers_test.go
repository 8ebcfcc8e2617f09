package admission_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lagoon/admission"
)

func TestReaders_HotPathDoesNotAllocate(t *testing.T) {
	r := must(admission.NewReaders(admission.Config{}))(t)
	key := admission.ReaderKey{Group: "warehouse", Client: "wh-1", Topic: "orders", Partition: 3}
	now, offset := epoch, int64(0)
	read := admission.Read{State: admission.Lagging, BudgetOK: true}
	step := func() {
		now = now.Add(7 * time.Millisecond)
		offset += 1000
		c := r.Observe(key, admission.Position{Offset: offset, EndOffset: offset + 1e9, BehindBytes: 9 << 30, BehindAge: time.Hour}, now)
		read.State = c.State
		d := admission.Decide(read)
		r.Served(key, d.Lane, 1<<20, now)
		r.Waited(key, time.Millisecond, admission.Limit{By: admission.LimitTier, Name: "hdd"}, now)
	}
	step()
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Fatalf("%v allocations per read of a known reader", n)
	}
	if v, _ := r.View(key, now); v.LaneBytesTotal[admission.Bypass] == 0 {
		t.Fatal("the reads were not counted")
	}
}

func TestReaders_ETA(t *testing.T) {
	r := must(admission.NewReaders(admission.Config{}))(t)
	key := admission.ReaderKey{Client: "c", Topic: "t"}
	behind := int64(1000 << 20)
	now := epoch
	for range 31 { // closes 10 MiB per second
		r.Observe(key, admission.Position{EndOffset: 1, BehindBytes: behind, BehindAge: time.Hour}, now)
		r.Served(key, admission.Bypass, 10<<20, now)
		behind -= 10 << 20
		now = now.Add(time.Second)
	}
	v, ok := r.View(key, now)
	if !ok || v.ETA < 69*time.Second || v.ETA > 71*time.Second {
		t.Fatalf("eta %s, want 70 s", v.ETA)
	}
	if v.BytesPerSecond < 9<<20 || v.BytesPerSecond > 11<<20 {
		t.Fatalf("%d bytes per second, want about %d", v.BytesPerSecond, 10<<20)
	}
	// A minute of silence later the rate is gone, the total is not.
	v, _ = r.View(key, now.Add(2*time.Minute))
	if v.BytesPerSecond != 0 || v.LaneBytesTotal[admission.Bypass] != 310<<20 {
		t.Fatalf("after a pause: %d bytes per second, %d in all", v.BytesPerSecond, v.LaneBytesTotal[admission.Bypass])
	}
}

func TestReaders_ChangesAreTold(t *testing.T) {
	r := must(admission.NewReaders(admission.Config{}))(t)
	key := admission.ReaderKey{Group: "g", Topic: "t"}
	position := admission.Position{EndOffset: 10, BehindBytes: 1 << 30, BehindAge: time.Hour}
	if c := r.Observe(key, position, epoch); c.State != admission.Lagging || !c.Changed {
		t.Fatalf("%+v", c)
	}
	if c := r.Observe(key, position, epoch); c.Changed {
		t.Fatalf("the same again: %+v", c)
	}
	if c := r.Observe(key, admission.Position{Offset: 10, EndOffset: 10}, epoch.Add(time.Second)); c.State != admission.Realtime || !c.Changed {
		t.Fatalf("at the end: %+v", c)
	}
	changes := r.Tick(epoch.Add(time.Hour / 2))
	if len(changes) != 1 || changes[0].Key != key || changes[0].From != admission.Realtime || changes[0].Class.State != admission.Stopped {
		t.Fatalf("%+v", changes)
	}
	if again := r.Tick(epoch.Add(time.Hour / 2)); len(again) != 0 {
		t.Fatalf("told twice: %+v", again)
	}
}

// Two connections with one client id are two readers, but one flow.
func TestReaders_ConnectionsApart(t *testing.T) {
	r := must(admission.NewReaders(admission.Config{}))(t)
	a := admission.ReaderKey{Client: "console-consumer", Topic: "t", Conn: 1}
	b := admission.ReaderKey{Client: "console-consumer", Topic: "t", Conn: 2}
	ca := r.Observe(a, admission.Position{Offset: 10, EndOffset: 10}, epoch)
	cb := r.Observe(b, admission.Position{Offset: 0, EndOffset: 10, BehindBytes: 1 << 30, BehindAge: time.Hour}, epoch)
	if ca.State != admission.Realtime || cb.State != admission.Lagging || a.Flow() != b.Flow() {
		t.Fatalf("%+v, %+v", ca, cb)
	}
}

// The registry keeps copies of strings: the caller's may be parts of a frame that is reused.
func TestReaders_KeepsCopies(t *testing.T) {
	r := must(admission.NewReaders(admission.Config{}))(t)
	for i := range 100 {
		r.Observe(admission.ReaderKey{Group: fmt.Sprint("g", i), Topic: "t"}, admission.Position{}, epoch)
	}
	if err := r.CheckInvariants(); err != nil {
		t.Fatal(err)
	}
	if err := r.SetConfig(admission.Config{MaxReaders: 10}); err != nil {
		t.Fatal(err)
	}
	if known, dropped := r.Len(); known != 10 || dropped != 90 {
		t.Fatalf("%d known, %d dropped", known, dropped)
	}
	if err := r.CheckInvariants(); err != nil {
		t.Fatal(err)
	}
}

func TestConfig_FaultsAreJoined(t *testing.T) {
	err := admission.Config{MinBytes: -1, StopAfter: time.Second, MaxReaders: -5}.Validate()
	for _, field := range []string{"MinBytes", "StopAfter", "MaxReaders"} {
		if !errors.Is(err, admission.ErrConfig) || !strings.Contains(err.Error(), field) {
			t.Fatalf("%v does not name %s", err, field)
		}
	}
	if _, err := admission.NewReaders(admission.Config{MinAge: -1}); !errors.Is(err, admission.ErrConfig) {
		t.Fatal(err)
	}
	limits := must(admission.NewLimits(admission.LimitsConfig{}, epoch))(t)
	for _, cfg := range []admission.DeviceConfig{
		{BytesPerSecond: 1}, {QuantumBytes: 1}, {MaxInFlight: -1}, {MigrationShare: 0.9}, {MaxQueued: -1}, {BurstBytes: -1},
	} {
		if _, err := admission.NewScheduler(cfg, limits, epoch); !errors.Is(err, admission.ErrConfig) {
			t.Fatalf("%+v: %v", cfg, err)
		}
	}
	if _, err := admission.NewLimits(admission.LimitsConfig{GlobalBytesPerSecond: -1}, epoch); !errors.Is(err, admission.ErrConfig) {
		t.Fatal(err)
	}
}

func TestNames_RoundTrip(t *testing.T) {
	for _, k := range []admission.Kind{admission.Group, admission.Client, admission.Topic} {
		if got, err := admission.ParseKind(k.String()); err != nil || got != k {
			t.Fatalf("%s: %v, %v", k, got, err)
		}
	}
	for _, c := range []admission.ForcedClass{admission.ForceNone, admission.ForceRealtime, admission.ForceLagging} {
		if got, err := admission.ParseForcedClass(c.String()); err != nil || got != c {
			t.Fatalf("%s: %v, %v", c, got, err)
		}
	}
	for _, m := range []admission.Mode{admission.ModeAuto, admission.ModeBuffered} {
		if got, err := admission.ParseMode(m.String()); err != nil || got != m {
			t.Fatalf("%s: %v, %v", m, got, err)
		}
	}
	for _, word := range []string{"none", "", "groups"} {
		if _, err := admission.ParseKind(word); !errors.Is(err, admission.ErrUnknownName) {
			t.Fatalf("%q: %v", word, err)
		}
	}
	if s := admission.State(99).String(); s != "unknown(99)" {
		t.Fatal(s)
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 9771050598: "9.1 GiB", -(64 << 20): "-64 MiB", 1<<63 - 1: "8 EiB"} {
		if got := admission.Bytes(n); got != want {
			t.Fatalf("%d: %q, want %q", n, got, want)
		}
	}
}
