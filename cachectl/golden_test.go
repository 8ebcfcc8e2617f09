package cachectl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"

	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/vfs"
)

// scene is the state of one golden script: a simulated machine with one tier.
type scene struct {
	t     *testing.T
	sim   *cachetest.Sim
	fs    vfs.FS
	cache *cachectl.Cache
	reg   *prometheus.Registry
	pool  *cachectl.Pool
	files map[string]vfs.File // one description per name and purpose
	pins  map[string]*cachectl.Pin
	trace bytes.Buffer
}

func newScene(t *testing.T, opt cachetest.Options, cacheOpt cachectl.Options) *scene {
	s := &scene{t: t, reg: prometheus.NewRegistry(), files: map[string]vfs.File{}, pins: map[string]*cachectl.Pin{}}
	opt.Trace = func(line string) { fmt.Fprintf(&s.trace, "  %s\n", line) }
	s.sim = cachetest.New(opt)
	s.fs = s.sim.FS(vfs.NewMem(1))
	cacheOpt.Registerer = s.reg
	cacheOpt.Logger = slog.New(slog.NewTextHandler(&s.trace, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	s.cache = cachectl.New(s.sim, cacheOpt)
	pool, err := cachectl.NewPool(4<<20, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s.pool = pool
	return s
}

// pattern is what every file holds: noise whose period is no multiple of anything that reads are aligned to.
var pattern = func() []byte {
	p := make([]byte, 1<<20-3)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}()

func fillPattern(p []byte, off int64) {
	for len(p) > 0 {
		n := copy(p, pattern[off%int64(len(pattern)):])
		p, off = p[n:], off+int64(n)
	}
}

func checkPattern(p []byte, off int64) error {
	for len(p) > 0 {
		want := pattern[off%int64(len(pattern)):]
		n := min(len(p), len(want))
		if !bytes.Equal(p[:n], want[:n]) {
			return fmt.Errorf("wrong bytes in the %d at %d", n, off)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (s *scene) open(name, purpose string, mode vfs.Mode) vfs.File {
	key := name + "/" + purpose
	if f, ok := s.files[key]; ok {
		return f
	}
	f, err := s.fs.Open(name, mode)
	if err != nil {
		s.t.Fatal(err)
	}
	s.files[key] = f
	s.t.Cleanup(func() { _ = f.Close() })
	return f
}

func parseSize(t *testing.T, v string) (sum int64) {
	for term := range strings.SplitSeq(v, "+") {
		unit := int64(1)
		for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "p": cachectl.PageSize} {
			if rest, ok := strings.CutSuffix(term, suffix); ok {
				term, unit = rest, u
				break
			}
		}
		n, err := strconv.ParseInt(term, 10, 64)
		if err != nil {
			t.Fatalf("size %q: %v", v, err)
		}
		sum += n * unit
	}
	return sum
}

func sizeArg(t *testing.T, d *datadriven.TestData, key string, def int64) int64 {
	if !d.HasArg(key) {
		return def
	}
	var v string
	d.ScanArgs(t, key, &v)
	return parseSize(t, v)
}

func simOptions(t *testing.T, d *datadriven.TestData, o *cachetest.Options) {
	o.CapacityBytes = sizeArg(t, d, "capacity", o.CapacityBytes)
	o.LockBytes = sizeArg(t, d, "lock", o.LockBytes)
	o.ReadAheadBytes = sizeArg(t, d, "readahead", o.ReadAheadBytes)
	for key, flag := range map[string]*bool{
		"no-cachestat": &o.NoCachestat, "no-dontcache": &o.NoDontCache, "no-direct": &o.NoDirect, "in-memory": &o.InMemory,
		"leak-direct": &o.LeakDirect, "leak-dontcache": &o.LeakDontCache, "ignore-random": &o.IgnoreRandom,
	} {
		if d.HasArg(key) {
			*flag = true
		}
	}
}

// TestGolden replays scripts against the simulated cache; outputs are the exact kernel calls and what stayed resident.
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *scene
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "machine" {
				opt, cacheOpt := cachetest.Options{}, cachectl.Options{VerifyEvery: -1}
				simOptions(t, d, &opt)
				if d.HasArg("mode") {
					var mode string
					d.ScanArgs(t, "mode", &mode)
					cacheOpt.ReadMode = cachectl.ReadMode(mode)
				}
				cacheOpt.VerifyEvery = sizeArg(t, d, "verify-every", -1)
				s = newScene(t, opt, cacheOpt)
				return ""
			}
			s.t = t
			s.trace.Reset()
			out := s.run(d)
			if d.HasArg("quiet") {
				return out
			}
			return s.trace.String() + out
		})
	})
}

func (s *scene) run(d *datadriven.TestData) string {
	t := s.t
	name := "a"
	if d.HasArg("file") {
		d.ScanArgs(t, "file", &name)
	}
	pos, n := sizeArg(t, d, "pos", 0), sizeArg(t, d, "n", 0)
	switch d.Cmd {
	case "set":
		s.sim.Set(func(o *cachetest.Options) { simOptions(t, d, o) })
		return ""
	case "settle":
		s.sim.Settle()
		return ""
	case "write":
		return s.write(name, pos, n, d.HasArg("sync"), d.HasArg("cold"))
	case "read":
		buf := make([]byte, n)
		if _, err := s.open(name, "hot", vfs.ReadOnly).ReadAt(buf, pos); err != nil && !errors.Is(err, io.EOF) {
			return err.Error()
		}
		return s.where(name)
	case "random": // a reader without read-ahead: makes exactly these pages resident
		f := s.open(name, "random", vfs.ReadOnly)
		if err := s.sim.Advise(f, 0, 0, cachectl.AdviseRandom); err != nil {
			return err.Error()
		}
		if _, err := f.ReadAt(make([]byte, n), pos); err != nil && !errors.Is(err, io.EOF) {
			return err.Error()
		}
		return s.where(name)
	case "bypass":
		return s.bypass(name, pos, n, !d.HasArg("active"), sizeArg(t, d, "size", -1))
	case "residency":
		r, err := s.cache.Residency(s.open(name, "hot", vfs.ReadOnly), pos, n)
		return fmt.Sprintf("%+v err=%v\n", r, err)
	case "writeback":
		return fmt.Sprintf("err=%v\n%s", s.cache.WriteBack(s.open(name, "hot", vfs.ReadOnly), pos, n), s.where(name))
	case "evict":
		e, err := s.cache.Evict(s.open(name, "hot", vfs.ReadOnly), pos, n)
		return fmt.Sprintf("%+v err=%v\n%s", e, err, s.where(name))
	case "warm":
		pages, err := s.cache.Warm(s.open(name, "hot", vfs.ReadOnly), pos, n)
		return fmt.Sprintf("warmed %d pages err=%v\n%s", pages, err, s.where(name))
	case "pin", "unpin":
		pin := s.pins[name]
		if pin == nil {
			pin = s.cache.NewPin()
			s.pins[name] = pin
		}
		var err error
		if d.Cmd == "pin" {
			err = pin.Hold(s.open(name, "hot", vfs.ReadOnly), pos, pos+n, 8<<20)
		} else {
			err = pin.Close()
			delete(s.pins, name)
		}
		from, end := pin.Held()
		return fmt.Sprintf("held %d-%d err=%v\n%s", from/cachectl.PageSize, end/cachectl.PageSize, err, s.where(name))
	case "trouble":
		return fmt.Sprintf("%q\n", s.cache.PinTrouble())
	case "probe":
		l, err := s.cache.Probe(s.fs)
		return fmt.Sprintf("err=%v\n%s", err, ladderText(l))
	case "ladders":
		var b strings.Builder
		for _, l := range s.cache.Ladders() {
			b.WriteString(ladderText(l))
		}
		return b.String()
	case "metrics":
		return metricsText(t, s.reg)
	}
	t.Fatalf("%s: unknown command %q", d.Pos, d.Cmd)
	return ""
}

func (s *scene) where(name string) string {
	return "resident: " + s.sim.Map(s.open(name, "map", vfs.ReadOnly)) + "\n"
}

func (s *scene) write(name string, pos, n int64, sync, cold bool) string {
	f, err := s.fs.Open(name, vfs.ReadWrite)
	if err != nil {
		if f, err = s.fs.Create(name); err != nil {
			return err.Error()
		}
	}
	defer f.Close()
	data := make([]byte, n)
	fillPattern(data, pos)
	if _, err := f.WriteAt(data, pos); err != nil {
		return err.Error()
	}
	if sync || cold {
		if err := f.SyncData(); err != nil {
			return err.Error()
		}
	}
	if cold {
		if _, err := s.cache.Evict(f, 0, pos+n); err != nil {
			return err.Error()
		}
		s.trace.Reset()
	}
	return s.where(name)
}

func (s *scene) bypass(name string, pos, n int64, sealed bool, size int64) string {
	buf, err := s.pool.Get(context.Background())
	if err != nil {
		return err.Error()
	}
	defer buf.Release()
	src := cachectl.Source{Buffered: s.open(name, "cold", vfs.ReadOnly), Size: size}
	if size < 0 {
		if src.Size, err = src.Buffered.Size(); err != nil {
			return err.Error()
		}
	}
	if sealed {
		src.Direct = func() (vfs.File, error) {
			f, err := s.fs.Open(name, vfs.Direct)
			if err == nil {
				s.t.Cleanup(func() { _ = f.Close() })
			}
			return f, err
		}
	}
	st, err := s.cache.ReadBypass(src, buf, pos, n)
	if err != nil {
		return fmt.Sprintf("err=%v\n%s", err, s.where(name))
	}
	if err := checkPattern(buf.Bytes()[st.Off:][:st.N], pos); err != nil {
		s.t.Errorf("bypass %s pos=%d n=%d: %v", name, pos, n, err)
	}
	return fmt.Sprintf("%+v\n%s", st, s.where(name))
}

func ladderText(l cachectl.Ladder) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s probed=%v best=%s align=%d measured=%d\n", l.FileSystem, l.Probed, l.Best(), l.Align.Offset, l.MeasuredAlign)
	for _, r := range l.Rungs {
		fmt.Fprintf(&b, "  %-10s usable=%-5v %s\n", r.Method, r.Usable, r.Why)
	}
	return b.String()
}

// metricsText prints every sample that is not zero, and the gauges of the ladder.
func metricsText(t *testing.T, reg *prometheus.Registry) string {
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if v == 0 && !strings.HasSuffix(f.GetName(), "usable") {
				continue
			}
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			lines = append(lines, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), v))
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n") + "\n"
}
