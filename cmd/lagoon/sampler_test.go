package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lagoon/cachectl"
	"lagoon/internal/admin"
)

// pages is a file whose pages are given by letters: . absent, # resident, d dirty, w being written, ! absent and evicted lately.
type pages struct {
	text  string
	asked int
}

func (p *pages) stat(pos, n int64) (cachectl.Residency, error) {
	p.asked++
	r := cachectl.Residency{Method: "cachestat"}
	for i := pos / pageSize; i*pageSize < pos+n; i++ {
		r.Pages++
		switch p.text[i] {
		case '#':
			r.Resident++
		case 'd':
			r.Resident++
			r.Dirty++
		case 'w':
			r.Resident++
			r.Writeback++
		case '!':
			r.RecentlyEvicted++
		}
	}
	return r, nil
}

func TestGridFindsWhatIsThere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		n := 1 + rnd.IntN(700)
		var text strings.Builder
		for text.Len() < n {
			text.WriteString(strings.Repeat(string(".#dw!"[rnd.IntN(5)]), min(n-text.Len(), 1+rnd.IntN(100))))
		}
		f := &pages{text: text.String()}
		size := int64(n-1)*pageSize + 1 + rnd.Int64N(pageSize)
		g, _, err := look(size, f.stat)
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := f.stat(0, size)
		if g.refault != whole.RecentlyEvicted || g.resident > size || g.resident < whole.Resident*pageSize-pageSize+1 || g.dirty > whole.Dirty*pageSize {
			t.Fatalf("totals %+v of %s", g, f.text)
		}
		for i, c := range g.cells {
			pos := int64(i) * g.unit
			r, _ := f.stat(pos, min(g.unit, size-pos))
			if want := share(pageBytes(r.Resident, min(g.unit, size-pos)), min(g.unit, size-pos)); c != want {
				t.Fatalf("cell %d of unit %d is %d, want %d: %s", i, g.unit, c, want, f.text)
			}
			flags := byte(0)
			for bit, n := range map[byte]int64{admin.CellDirty: r.Dirty, admin.CellWriteback: r.Writeback, admin.CellRefault: r.RecentlyEvicted} {
				if n > 0 {
					flags |= bit
				}
			}
			if g.flags[i] != flags {
				t.Fatalf("flags of cell %d are %d, want %d: %s", i, g.flags[i], flags, f.text)
			}
		}
		// A row of the same bytes holds as much as the grid, within what a byte per cell can tell.
		row := newCellRow(size, 1+rnd.IntN(200))
		row.add(0, size, g)
		sum := 0.0
		for _, b := range row.resident {
			sum += b
		}
		if diff := sum - float64(g.resident); diff > float64(size)/100 || diff < -float64(size)/100 {
			t.Fatalf("the row holds %.0f bytes, the grid %d of %d", sum, g.resident, size)
		}
		// A log that has grown since: what is new is resident.
		grown := rnd.Int64N(size)
		row = newCellRow(size+grown, 1+rnd.IntN(200))
		row.add(0, size, g)
		row.fill(size, grown)
		for i, b := range row.resident {
			begin := int64(i) * row.cell
			end := min(begin+row.cell, size+grown)
			if least := float64(end - max(size, begin)); b < least-0.5 || b > float64(end-begin)+0.5 {
				t.Fatalf("cell [%d, %d) of a log that grew from %d holds %.0f", begin, end, size, b)
			}
		}
	}
}

func TestUnmixedSegmentIsOneQuestion(t *testing.T) {
	for _, letter := range []string{".", "#"} {
		f := &pages{text: strings.Repeat(letter, 2<<30/pageSize)}
		g, _, err := look(2<<30, f.stat)
		if err != nil || f.asked != 1 || len(g.cells) != 2048 {
			t.Errorf("%s: %d questions, %d cells, %v", letter, f.asked, len(g.cells), err)
		}
	}
	f := &pages{text: strings.Repeat("#", 256) + strings.Repeat(".", 1<<17-256)}
	if _, _, err := look(512<<20, f.stat); err != nil || f.asked > 2*10 {
		t.Errorf("one resident mebibyte of 512 took %d questions, %v", f.asked, err)
	}
}

// samplerWorld is a clock that kernel calls move, and segments.
type samplerWorld struct {
	now      time.Time
	cost     time.Duration // of one kernel call
	segments []sampled
	looks    map[string]int
	content  map[string]string
}

func (w *samplerWorld) add(row string, n int, busy bool) {
	for i := range n {
		file := fmt.Sprintf("%s-%d", row, i)
		w.content[file] = "."
		w.segments = append(w.segments, sampled{key: segmentKey{"ssd", file}, row: rowKey{row, 0}, size: pageSize, busy: busy,
			stat: func(pos, n int64) (cachectl.Residency, error) {
				w.looks[row]++
				w.now = w.now.Add(w.cost)
				if w.content[file] == "error" {
					return cachectl.Residency{}, errors.New("segment is gone")
				}
				return (&pages{text: w.content[file]}).stat(pos, n)
			}})
	}
}

func newSamplerWorld(cost time.Duration) (*samplerWorld, *sampler) {
	w := &samplerWorld{now: time.Unix(1000, 0), cost: cost, looks: map[string]int{}, content: map[string]string{}}
	return w, newSampler(func() []sampled { return append([]sampled(nil), w.segments...) }, time.Second, func() time.Time { return w.now })
}

// TestSamplerBudget: more to look at than a percent of a core allows; a question is asked ten times a second as well.
func TestSamplerBudget(t *testing.T) {
	w, s := newSamplerWorld(time.Millisecond)
	w.add("cold", 5000, false)
	w.add("live", 3, true)
	start := w.now
	for w.now.Sub(start) < 10*time.Minute {
		s.sweep(t.Context())
		for range 10 {
			s.refresh(t.Context(), w.segments[:5])
			w.now = w.now.Add(100 * time.Millisecond)
		}
	}
	allowed := time.Duration(float64(w.now.Sub(start))*samplerShare) + samplerBurst + samplerDebt + 10*time.Millisecond
	if s.spent > allowed || s.spent < allowed/2 {
		t.Errorf("%v of processor time in %v, allowed %v", s.spent, w.now.Sub(start), allowed)
	}
	if w.looks["live"] < 200 {
		t.Errorf("the active segments were looked at %d times in ten minutes", w.looks["live"])
	}
}

// TestSamplerOrder: what is watched comes first, what never changes is looked at once a minute, what changes is soon seen.
func TestSamplerOrder(t *testing.T) {
	w, s := newSamplerWorld(10 * time.Microsecond)
	w.add("cold", 100, false)
	w.add("live", 1, true)
	run := func(d time.Duration) {
		for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(time.Second) {
			s.sweep(t.Context())
		}
	}
	run(3 * time.Minute)
	w.looks = map[string]int{}
	run(2 * time.Minute)
	if n := w.looks["cold"]; n < 150 || n > 250 {
		t.Errorf("100 segments at rest were looked at %d times in two minutes, want about two each", n)
	}
	if n := w.looks["live"]; n < 100 {
		t.Errorf("the active one %d times", n)
	}
	w.looks = map[string]int{}
	s.refresh(t.Context(), w.segments[:10])
	run(20 * time.Second)
	if n := w.looks["cold"]; n < 40 {
		t.Errorf("ten watched segments were looked at %d times in 20 s", n)
	}
	w.content["cold-50"] = "#"
	run(time.Minute)
	if one, ok := s.of(segmentKey{"ssd", "cold-50"}); !ok || one.grid.resident != pageSize || one.wait > 32*time.Second {
		t.Errorf("the change was not seen, or is looked at rarely: %+v", one)
	}
	if got := s.residentOn("ssd"); got != pageSize {
		t.Errorf("resident on the tier: %d", got)
	}
	// One is gone, of another the kernel tells nothing.
	w.content["cold-51"] = "error"
	w.segments = append(w.segments[:50], w.segments[51:]...)
	run(2 * time.Minute)
	if _, ok := s.of(segmentKey{"ssd", "cold-50"}); ok {
		t.Error("a segment that is gone is still known")
	}
	if _, ok := s.of(segmentKey{"ssd", "cold-51"}); ok {
		t.Error("an answer for a segment of which nothing is known")
	}
}

func TestSamplerStopsWithTheQuestion(t *testing.T) {
	w, s := newSamplerWorld(time.Millisecond)
	w.add("cold", 100, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.refresh(ctx, w.segments)
	if w.looks["cold"] != 0 {
		t.Errorf("%d looks for somebody who went away", w.looks["cold"])
	}
}

// TestForgottenSamplesHaveNoAge: what is due after an eviction is not two thousand years old.
func TestForgottenSamplesHaveNoAge(t *testing.T) {
	w, s := newSamplerWorld(10 * time.Microsecond)
	w.add("orders", 2, false)
	w.add("other", 1, false)
	reg := prometheus.NewRegistry()
	if err := s.register(reg); err != nil {
		t.Fatal(err)
	}
	s.sweep(t.Context())
	w.now = w.now.Add(3 * time.Second)
	s.forget(rowKey{"orders", 0})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if age := f.GetMetric()[0].GetGauge().GetValue(); f.GetName() == "lagoon_cache_sample_age_seconds" && (age < 3 || age > 4) {
			t.Errorf("age %g s, want that of the one that was not forgotten", age)
		}
	}
}

// TestNothingToLookAtIsNoFault: a broker without data cannot tell how residency is asked.
func TestNothingToLookAtIsNoFault(t *testing.T) {
	w, s := newSamplerWorld(10 * time.Microsecond)
	s.sweep(t.Context())
	if c := s.check(); !c.OK {
		t.Errorf("empty: %+v", c)
	}
	w.add("orders", 1, true)
	s.sweep(t.Context())
	if c := s.check(); !c.OK || c.Text != "residency by cachestat" {
		t.Errorf("%+v", c)
	}
	w, s = newSamplerWorld(10 * time.Microsecond)
	w.add("orders", 1, true)
	w.content["orders-0"] = "error"
	s.sweep(t.Context())
	if c := s.check(); c.OK {
		t.Errorf("nothing is told: %+v", c)
	}
}

// TestSamplerAndAHungDirectory: files that a device does not let open hold up the looks at their directory, and no others; the time that was waited
// costs nothing.
func TestSamplerAndAHungDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		looked := map[string]int{}
		var mu sync.Mutex
		var hangs atomic.Bool
		var list []sampled
		for _, dir := range []string{"bad", "good"} {
			for i := range 3 {
				f := &pages{text: "####"}
				list = append(list, sampled{key: segmentKey{dir, fmt.Sprint(i)}, row: rowKey{dir, int32(i)}, size: 4 * pageSize, busy: true,
					stat: func(pos, n int64) (cachectl.Residency, error) {
						if dir == "bad" && hangs.Load() {
							<-release
						}
						mu.Lock()
						defer mu.Unlock()
						looked[dir]++
						return f.stat(pos, n)
					}})
			}
		}
		times := func(dir string) int {
			mu.Lock()
			defer mu.Unlock()
			return looked[dir]
		}
		s := newSampler(func() []sampled { return list }, time.Second, time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.run(ctx)
		}()
		time.Sleep(10 * time.Second)
		if times("bad") == 0 {
			t.Error("not looked at")
		}
		hangs.Store(true)
		time.Sleep(time.Minute)
		was := times("good")
		began := time.Now()
		s.refresh(ctx, list) // a question
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a question took %v", took)
		}
		time.Sleep(time.Minute)
		if times("good") < was+10 {
			t.Errorf("looked at what answers %d times in a minute", times("good")-was)
		}
		hangs.Store(false)
		close(release)
		was = times("bad")
		time.Sleep(2 * time.Minute)
		if times("bad") < was+10 {
			t.Errorf("looked at what answers again %d times in two minutes", times("bad")-was)
		}
		cancel()
		<-ended
	})
}
