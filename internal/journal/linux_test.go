package journal_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"lagoon/cachectl"
	"lagoon/internal/journal"
	"lagoon/internal/vfs"
)

// buffered is a file system without writes around the page cache.
type buffered struct{ vfs.FS }

func (b buffered) Open(name string, mode vfs.Mode) (vfs.File, error) {
	if mode == vfs.DirectSync {
		return nil, vfs.ErrDirectUnsupported
	}
	return b.FS.Open(name, mode)
}

// disk is a directory of the operating system where O_DIRECT works.
func disk(t testing.TB) vfs.FS {
	t.Helper()
	fsys, err := vfs.OS(t.TempDir())
	must(t, err)
	f, err := fsys.Create("probe")
	must(t, err)
	must(t, f.Close())
	if f, err = fsys.Open("probe", vfs.DirectSync); err != nil {
		if os.Getenv("LAGOON_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	must(t, f.Close())
	must(t, fsys.Remove("probe"))
	return fsys
}

// On a real file system: what is committed is given again, no page stays in the cache, and no commit changes what the files take on disk.
func TestLinux(t *testing.T) {
	cache := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{})
	for name, newFS := range map[string]func() vfs.FS{
		"direct":   func() vfs.FS { return disk(t) },
		"buffered": func() vfs.FS { return buffered{disk(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			fsys := newFS()
			j := open(t, fsys, journal.Options{Bytes: 24 << 20, MaxRound: 2 << 20, Cache: cache})
			if j.Direct() != (name == "direct") {
				t.Errorf("direct: %v", j.Direct())
			}
			before := taken(t, fsys)
			if before < 48<<20 {
				t.Errorf("the files take %d bytes", before)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			var files [2][]given
			for i := range 60 {
				j.Begin()
				if j.Left() < 2<<20 {
					j.Turn()
					files = [2][]given{files[1], nil}
				}
				for range 1 + rng.IntN(5) {
					if room := j.Room(); room > 0 {
						files[1] = append(files[1], add(j, i, 1+rng.IntN(room)))
					}
				}
				must(t, j.Commit())
			}
			if files[0] == nil {
				t.Fatal("no file was turned to")
			}
			got, found := replay(t, fsys)
			if !slices.Equal(got, slices.Concat(files[0], files[1])) || found.Damaged != nil || found.Torn != 0 {
				t.Errorf("replayed %d of %d entries: %+v", len(got), len(files[0])+len(files[1]), found)
			}
			for _, name := range journal.Names {
				f, err := fsys.Open(name, vfs.ReadOnly)
				must(t, err)
				r, err := cache.Residency(f, 0, 24<<20)
				must(t, err)
				if r.Resident > 0 {
					t.Errorf("%s: %d pages in the cache", name, r.Resident)
				}
				must(t, f.Close())
			}
			if after := taken(t, fsys); after != before {
				t.Errorf("the files take %d bytes, and took %d", after, before)
			}
		})
	}
}

// taken is what both files have of the disk, in bytes.
func taken(t *testing.T, fsys vfs.FS) (n int64) {
	t.Helper()
	for _, name := range journal.Names {
		st, err := os.Stat(filepath.Join(fsys.Root(), name))
		must(t, err)
		n += st.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return n
}

// BenchmarkCommit writes rounds of one size, beside appends of the same size to one file that are synced one by one.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{64 << 10, 1 << 20} {
		size := fmt.Sprintf("%dKiB", n>>10)
		for _, way := range []string{"direct", "buffered"} {
			b.Run(way+"/"+size, func(b *testing.B) {
				fsys := disk(b)
				if way == "buffered" {
					fsys = buffered{fsys}
				}
				j, err := journal.Open(fsys, journal.Options{Bytes: 64 << 20, MaxRound: 2 << 20, Cache: cachectl.New(cachectl.LinuxKernel(), cachectl.Options{})})
				must(b, err)
				defer j.Close()
				e, data := entry(1, n)
				b.SetBytes(int64(n))
				for b.Loop() {
					j.Begin()
					if j.Room() < n {
						j.Turn()
					}
					copy(j.Add(e), data)
					must(b, j.Commit())
				}
			})
		}
		b.Run("fdatasync/"+size, func(b *testing.B) {
			fsys := disk(b)
			_, data := entry(1, n)
			b.SetBytes(int64(n))
			f, err := fsys.Create("log")
			must(b, err)
			defer f.Close()
			for pos := int64(0); b.Loop(); pos += int64(n) {
				_, err := f.WriteAt(data, pos)
				must(b, err)
				must(b, f.SyncData())
			}
		})
	}
}
