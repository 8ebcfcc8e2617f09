package records

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	fast "github.com/klauspost/compress/gzip"
)

// samples are plain bytes of many kinds: none, one, repeated ones, text, random ones, near and far matches.
func samples() map[string][]byte {
	rng := rand.New(rand.NewPCG(7, 7))
	random := make([]byte, 200_000)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	var text, skewed []byte
	for i := range 6000 {
		text = fmt.Appendf(text, "record %d says %04x;", i%700, rng.IntN(1<<12))
	}
	for range 150_000 { // codes of all lengths
		skewed = append(skewed, byte(255-min(rng.ExpFloat64()*18, 255)))
	}
	far := bytes.Clone(random[:40_000])
	far = append(far, far[7_300:40_000]...)
	return map[string][]byte{"nothing": {}, "one": {7}, "two": []byte("ab"), "zeros": make([]byte, 70_000), "period 3": bytes.Repeat([]byte("abc"), 20_000), "text": text,
		"random": random, "skewed": skewed, "far": far}
}

// TestGunzip: what others packed, at all levels, is unpacked, and what is cut off or has any byte changed never becomes anything else.
func TestGunzip(t *testing.T) {
	var z gunzip
	var buf []byte
	for name, plain := range samples() {
		for level := gzip.HuffmanOnly; level <= gzip.BestCompression; level++ {
			for _, library := range []bool{true, false} {
				data := pack(t, plain, level, library)
				got, ok := z.unpack(data, buf, maxWhole)
				if !ok || !bytes.Equal(got, plain) {
					t.Fatalf("%s, level %d, library %v: %d of %d bytes, ok %v", name, level, library, len(got), len(plain), ok)
				}
				buf = got
				step := max(1, len(data)/40)
				for at := 0; at < len(data); at += step {
					if _, ok := z.unpack(data[:at], buf, maxWhole); ok {
						t.Fatalf("%s, level %d: %d of %d bytes are enough", name, level, at, len(data))
					}
					bad := bytes.Clone(data)
					bad[at] ^= 1 << (at % 8)
					if got, ok := z.unpack(bad, buf, maxWhole); ok && !bytes.Equal(got, plain) {
						t.Fatalf("%s, level %d: byte %d was changed, and nobody noticed", name, level, at)
					}
				}
			}
		}
	}
	whole := pack(t, make([]byte, maxWhole), 9, true)
	if got, ok := z.unpack(whole, buf, maxWhole); !ok || len(got) != maxWhole {
		t.Error("the largest batch is not unpacked")
	}
	if _, ok := z.unpack(whole, buf, maxWhole-1); ok {
		t.Error("more than the most is unpacked")
	}
}

// TestGunzipLeavesToLibrary: several members and optional fields are legal, and read by the library.
func TestGunzipLeavesToLibrary(t *testing.T) {
	plain := bytes.Repeat([]byte("a record "), 100)
	var named bytes.Buffer
	w := gzip.NewWriter(&named)
	w.Name = "records"
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	two := append(pack(t, plain[:300], 5, true), pack(t, plain[300:], 5, true)...)
	for name, data := range map[string][]byte{"named": named.Bytes(), "two members": two} {
		var u Unpacker
		if _, ok := new(gunzip).unpack(data, nil, maxWhole); ok {
			t.Errorf("%s: not left to the library", name)
		}
		if err := u.unpack(1, data); err != nil || !bytes.Equal(u.buf, plain) {
			t.Errorf("%s: %d bytes, %v", name, len(u.buf), err)
		}
	}
}

func pack(t testing.TB, plain []byte, level int, library bool) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	if library {
		w, err = fast.NewWriterLevel(&out, level)
	} else {
		w, err = gzip.NewWriterLevel(&out, level)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzGunzip: what is unpacked is what the standard library unpacks.
func FuzzGunzip(f *testing.F) {
	for _, plain := range samples() {
		plain = plain[:min(len(plain), 2000)]
		for _, level := range []int{gzip.HuffmanOnly, 0, 1, 9} {
			f.Add(pack(f, plain, level, false))
		}
	}
	z := new(gunzip)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := z.unpack(data, nil, 1<<20)
		if !ok {
			return
		}
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, want %d, %v", len(got), len(want), err)
		}
	})
}

// BenchmarkGunzip is a batch of sixteen records of 1 KiB, and of what the library makes of it.
func BenchmarkGunzip(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var plain []byte
	for range 16 * 256 {
		plain = fmt.Appendf(plain, "%04x", rng.IntN(1<<12))
	}
	for _, level := range []int{3, 6} {
		data := pack(b, plain, level, true)
		b.Run(fmt.Sprintf("level=%d/here", level), func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			z, buf, ok := new(gunzip), []byte(nil), false
			for b.Loop() {
				if buf, ok = z.unpack(data, buf, maxWhole); !ok {
					b.Fatal("not unpacked")
				}
			}
		})
		b.Run(fmt.Sprintf("level=%d/library", level), func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			r, buf := new(fast.Reader), make([]byte, len(plain))
			for b.Loop() {
				if err := r.Reset(bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(r, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
