package cachectl_test

import (
	"testing"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

const benchBytes = 64 << 20

func BenchmarkCache_Residency(b *testing.B) {
	d := newDisk(b, benchBytes)
	c := newCache("")
	if _, err := c.Warm(d.file, 0, benchBytes); err != nil {
		b.Fatal(err)
	}
	const n = 1 << 20
	b.Run("cachestat/1MiB", func(b *testing.B) {
		b.ReportAllocs()
		for i := int64(0); b.Loop(); i++ {
			if r, err := c.Residency(d.file, i*n%benchBytes, n); err != nil || r.Pages != n/cachectl.PageSize {
				b.Fatal(r, err)
			}
		}
	})
	b.Run("mincore/1MiB", func(b *testing.B) {
		b.ReportAllocs()
		set := make([]bool, n/cachectl.PageSize)
		for i := int64(0); b.Loop(); i++ {
			if err := cachectl.LinuxKernel().Mincore(d.file, i*n%benchBytes, set); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCache_ReadBypass reads a cold file in sequence; pread-cold and pread-resident are the plain reads to compare with.
func BenchmarkCache_ReadBypass(b *testing.B) {
	d := newDisk(b, benchBytes)
	const n = 1 << 20
	pool, err := cachectl.NewPool(n, n)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	buf, _ := pool.TryGet()
	defer buf.Release()
	sequence := func(b *testing.B, cold bool, read func(pos int64) error) {
		c := newCache("")
		b.SetBytes(n)
		b.ReportAllocs()
		pos := int64(0)
		if cold {
			d.cold(b, c)
		} else if _, err := c.Warm(d.file, 0, benchBytes); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := read(pos); err != nil {
				b.Fatal(err)
			}
			if pos += n; pos == benchBytes {
				pos = 0
				if cold {
					b.StopTimer()
					d.cold(b, c)
					b.StartTimer()
				}
			}
		}
	}
	for _, mode := range append(bypassModes, cachectl.ModeBuffered) {
		b.Run(string(mode), func(b *testing.B) {
			c := cachectl.New(cachectl.LinuxKernel(), cachectl.Options{ReadMode: mode})
			src := d.source(b)
			sequence(b, true, func(pos int64) error {
				_, err := c.ReadBypass(src, buf, pos, n)
				return err
			})
		})
	}
	for name, cold := range map[string]bool{"pread-cold": true, "pread-resident": false} {
		b.Run(name, func(b *testing.B) {
			f := d.open(b, vfs.ReadOnly)
			sequence(b, cold, func(pos int64) error {
				_, err := f.ReadAt(buf.Bytes(), pos)
				return err
			})
		})
	}
}

func BenchmarkPool_GetRelease(b *testing.B) {
	pool, err := cachectl.NewPool(1<<20, 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	b.ReportAllocs()
	for b.Loop() {
		buf, err := pool.Get(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		buf.Release()
	}
}
