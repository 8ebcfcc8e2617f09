package cachectl_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"lagoon/cachectl"
	"lagoon/cachectl/cachetest"
	"lagoon/internal/vfs"
)

// TestReadBypass_LeavesCacheAsItWas: whatever is resident, wherever the read lies, by every method but buffered: the bytes
// are right and the set of resident pages is the same afterwards.
func TestReadBypass_LeavesCacheAsItWas(t *testing.T) {
	pool, err := cachectl.NewPool(4<<20, 4<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	const fileBytes = 5<<20 + 777
	rapid.Check(t, func(rt *rapid.T) {
		mode := rapid.SampledFrom([]cachectl.ReadMode{
			cachectl.ModeDirect, cachectl.ModeDontCache, cachectl.ModeDropBehind,
		}).Draw(rt, "mode")
		sim := cachetest.New(cachetest.Options{
			NoCachestat: rapid.Bool().Draw(rt, "no cachestat"),
			DirectAlign: rapid.SampledFrom([]int64{512, 4096}).Draw(rt, "align"),
		})
		fs := sim.FS(vfs.NewMem(7))
		hot := makeFile(rt, fs, "a", fileBytes)
		cache := cachectl.New(sim, cachectl.Options{ReadMode: mode, VerifyEvery: 1})
		if e, err := cache.Evict(hot, 0, fileBytes); err != nil || e.LeftPages != 0 {
			rt.Fatalf("evict: %+v, %v", e, err)
		}
		for i := range rapid.IntRange(0, 6).Draw(rt, "hot reads") {
			pos := rapid.Int64Range(0, fileBytes-1).Draw(rt, fmt.Sprintf("hot pos %d", i))
			n := rapid.Int64Range(1, 300<<10).Draw(rt, fmt.Sprintf("hot n %d", i))
			advice := rapid.SampledFrom([]cachectl.Advice{cachectl.AdviseNormal, cachectl.AdviseRandom}).Draw(rt, "advice")
			if err := sim.Advise(hot, 0, 0, advice); err != nil {
				rt.Fatal(err)
			}
			_, _ = hot.ReadAt(make([]byte, n), pos)
		}
		cold, err := fs.Open("a", vfs.ReadOnly)
		if err != nil {
			rt.Fatal(err)
		}
		defer cold.Close()
		direct, err := fs.Open("a", vfs.Direct)
		if err != nil {
			rt.Fatal(err)
		}
		defer direct.Close()
		src := cachectl.Source{Buffered: cold, Direct: func() (vfs.File, error) { return direct, nil }, Size: fileBytes}
		before := sim.Map(hot)
		for i := range rapid.IntRange(1, 4).Draw(rt, "bypass reads") {
			pos := rapid.Int64Range(0, fileBytes).Draw(rt, fmt.Sprintf("pos %d", i))
			n := rapid.Int64Range(0, 5<<20).Draw(rt, fmt.Sprintf("n %d", i))
			buf, ok := pool.TryGet()
			if !ok {
				rt.Fatal("pool leaked a buffer")
			}
			st, err := cache.ReadBypass(src, buf, pos, n)
			if err != nil {
				buf.Release()
				rt.Fatalf("read: %v", err)
			}
			err = checkPattern(buf.Bytes()[st.Off:][:st.N], pos)
			buf.Release()
			if err != nil {
				rt.Fatal(err)
			}
			if string(st.Method) != string(mode) {
				rt.Fatalf("read by %s, want %s", st.Method, mode)
			}
			want := min(n, fileBytes-pos)
			if st.N > want || st.N < min(want, 4<<20-cachectl.PageSize) || st.LeftPages != 0 {
				rt.Fatalf("read %d bytes at %d: %+v", want, pos, st)
			}
		}
		if after := sim.Map(hot); after != before {
			rt.Fatalf("resident before: %s\nafter: %s", before, after)
		}
	})
}

type failer interface {
	Fatal(args ...any)
	Cleanup(fn func())
}

func makeFile(t failer, fs vfs.FS, name string, size int64) vfs.File {
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	data := make([]byte, size)
	fillPattern(data, 0)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.SyncData(); err != nil {
		t.Fatal(err)
	}
	return f
}
