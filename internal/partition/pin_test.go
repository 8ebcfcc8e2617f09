package partition_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"lagoon/internal/partition"
	"lagoon/internal/vfs"
	"lagoon/tiering"
)

// listed is a partition in DescribeLogDirs: "t0", "t1 future lag 30".
func listed(s *partition.Store) string {
	var out []string
	for _, d := range s.Dirs() {
		for _, p := range d.Partitions {
			text := d.Name
			if p.Future {
				text += fmt.Sprintf(" future lag %d", p.Lag)
			}
			out = append(out, text)
		}
	}
	return strings.Join(out, ", ")
}

func TestPinnedSegmentsMoveBothWays(t *testing.T) {
	hot, cold := osFS(t), osFS(t)
	fast := func(o *partition.Options) { o.PlanInterval = 10 * time.Millisecond }
	s := open(t, fast, hot, cold)
	cfg := config()
	l := load(t, s, cfg, 1)
	var want []byte
	fill := func() {
		for i := range 250 {
			b := batch(fmt.Sprintf("b%d", i), 10, 2000, nil, time.Now().UnixMilli())
			produce(t, l, b)
			want = append(want, b...)
		}
	}
	sealedIn := func(tier string) bool {
		segs := l.Segments()
		for _, sv := range segs[:len(segs)-1] {
			if sv.Tier != tier {
				return false
			}
		}
		return segs[len(segs)-1].Tier == "t0" && len(segs) > 3
	}
	pin := func(root string) {
		t.Helper()
		cfg.Pins = nil
		if root != "" {
			name, err := s.PinTarget("orders", 0, root)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Pins = map[int32]string{0: name}
		}
		s.SetConfig("orders", cfg)
	}
	fill()
	total := l.Segments()[len(l.Segments())-1].Before + l.Segments()[len(l.Segments())-1].SizeBytes
	if got := listed(s); got != "t0" {
		t.Errorf("before: %s", got)
	}
	s.Migrator().Pause("look first")
	pin(cold.Root())
	segs := l.Segments()
	if got, want := listed(s), fmt.Sprintf("t0, t1 future lag %d", segs[len(segs)-1].Base); got != want {
		t.Errorf("on its way: %s, want %s", got, want)
	}
	if v, ok := l.Pin(); !ok || v.Tier != "t1" || v.Path != cold.Root() || v.Segments != len(segs)-1 || v.Bytes != segs[len(segs)-1].Before || v.Waiting != "" {
		t.Errorf("pin %+v", v)
	}
	s.Migrator().Resume()
	waitFor(t, "all sealed segments in t1", func() bool { return sealedIn("t1") })
	if got := listed(s); got != "t1" || s.Dirs()[1].Partitions[0].SizeBytes != total {
		t.Errorf("there: %s with %d bytes of %d", got, s.Dirs()[1].Partitions[0].SizeBytes, total)
	}
	fill() // what is sealed now follows
	waitFor(t, "newly sealed segments in t1", func() bool { return sealedIn("t1") })
	if got := s.Unpinned("orders", 0); !maps.Equal(got, map[string]int64{"t1": l.Segments()[len(l.Segments())-1].Before}) {
		t.Errorf("without the pin: %v; nothing would bring it back", got)
	}

	// Back, across a restart.
	s.Migrator().Pause("restart first")
	pin(hot.Root())
	closeStore(t, s)
	s = open(t, fast, hot, cold)
	l = load(t, s, cfg, 1)
	waitFor(t, "all sealed segments back in t0", func() bool { return sealedIn("t0") && listed(s) == "t0" })
	cfg.LocalRetentionBytes = 1
	s.SetConfig("orders", cfg)
	consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
	if got := s.Unpinned("orders", 0); got["t0"] != 0 || got["t1"] == 0 {
		t.Errorf("without the pin: %v, want all in t1", got)
	}
	if !sealedIn("t0") {
		t.Error("local.retention.bytes moved what is pinned")
	}
	pin("")
	waitFor(t, "the policy to move it", func() bool { return sealedIn("t1") && listed(s) == "t0, t1" })
	if _, ok := l.Pin(); ok {
		t.Error("the pin is still there")
	}
	closeStore(t, s)
	s = open(t, nil, hot, cold)
	l = load(t, s, cfg, 1)
	consume(t, l, partition.ReaderRef{ClientID: "c"}, 0, 1<<20, want)
	closeStore(t, s)
}

// A pin to a full tier waits and says so; one to a directory that is not configured any more changes nothing.
func TestPinThatCannotBe(t *testing.T) {
	hot, cold := osFS(t), osFS(t)
	s := open(t, func(o *partition.Options) { o.PlanInterval, o.Dirs[1].MaxUsedBytes = 10*time.Millisecond, 1<<20 }, hot, cold)
	cfg := config()
	cfg.Pins = map[int32]string{0: "t1"}
	l := load(t, s, cfg, 1)
	for i := range 150 {
		produce(t, l, batch(fmt.Sprintf("b%d", i), 10, 2000, nil, time.Now().UnixMilli()))
	}
	waitFor(t, "a move to be put off", func() bool { v, _ := l.Pin(); return v.Waiting != "" })
	if v, _ := l.Pin(); !strings.Contains(v.Waiting, "t1 holds") || !strings.Contains(v.Waiting, "no room") || v.Segments == 0 {
		t.Errorf("waits because %q", v.Waiting)
	}
	cfg.Pins = map[int32]string{0: "tape"}
	s.SetConfig("orders", cfg)
	waitFor(t, "the other plan", func() bool { return s.Migrator().Snapshot().PutOffCount == 0 })
	if v, ok := l.Pin(); !ok || v.Dir != "tape" || v.Tier != "" {
		t.Errorf("pin %+v, %v", v, ok)
	}
	if got := listed(s); got != "t0, t1" && got != "t0" {
		t.Errorf("listed in %s", got)
	}
	closeStore(t, s)
}

// Tiers with several directories: the home takes what is pinned to the hottest tier, another directory of it is refused;
// in a colder one segments go where they are pinned, and what is in one directory cannot be pinned to its neighbour.
func TestPinAmongDirectories(t *testing.T) {
	fss := []vfs.FS{osFS(t), osFS(t), osFS(t), osFS(t)}
	s := open(t, func(o *partition.Options) {
		o.PlanInterval = 10 * time.Millisecond
		for i, tier := range []string{"t0", "t0", "t1", "t1"} {
			o.Dirs[i].Tier = tier
		}
	}, fss...)
	cfg := config()
	l := load(t, s, cfg, 1)
	for i := range 150 {
		produce(t, l, batch(fmt.Sprintf("b%d", i), 10, 2000, nil, time.Now().UnixMilli()))
	}
	home := 0
	if l.Segments()[0].Dir != "t0" {
		home = 1
	}
	target := func(topic string, p int32, path string, wantName string, wantErr error) {
		t.Helper()
		if name, err := s.PinTarget(topic, p, path); name != wantName || !errors.Is(err, wantErr) {
			t.Errorf("%s-%d to %s: %q, %v, want %q, %v", topic, p, path, name, err, wantName, wantErr)
		}
	}
	target("orders", 0, fss[home].Root(), []string{"t0", "t0#1"}[home], nil)
	target("orders", 0, fss[1-home].Root(), "", partition.ErrPlacement)
	target("orders", 0, fss[0].Root()+"/", "", partition.ErrNoLogDir)
	target("orders", 1, fss[2].Root(), "", partition.ErrClosed)
	target("other", 0, "", "", partition.ErrNoLogDir)
	target("orders", 0, fss[3].Root(), "t1#1", nil)
	cfg.Pins = map[int32]string{0: "t1#1"}
	s.SetConfig("orders", cfg)
	waitFor(t, "the sealed segments in t1#1", func() bool { return listed(s) == "t1#1" })
	target("orders", 0, fss[2].Root(), "", partition.ErrPlacement)
	for _, m := range s.Migrator().Snapshot().Migrations {
		if m.Move.Cause != tiering.CausePin {
			t.Errorf("%+v", m.Move)
		}
	}
	closeStore(t, s)
}
