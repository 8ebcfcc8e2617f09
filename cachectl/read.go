package cachectl

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"

	"lagoon/internal/vfs"
)

// spillBytes is how far beyond a read its read-ahead is looked for when it is verified (measured: up to 16 MiB with
// read_ahead_kb 8192).
const spillBytes = 16 << 20

// errSkip: this method does not apply to this read; the next one may. It says nothing about the file system.
var errSkip = errors.New("cachectl: method does not apply")

// ReadBypass reads [pos, pos+n) of src into buf without leaving new pages in the page cache, by the best method that the
// file system has shown to work. Pages that were resident before stay resident.
//
// The bytes are buf.Bytes()[stat.Off:][:stat.N]; the rest of buf is overwritten with file bytes around them or left
// alone. N is less than n only at src.Size or where the buffer is full (a direct read may need one alignment unit at
// each end), and at least 1 unless n is 0 or pos is src.Size. The caller keeps its reference to buf.
//
// Best for the device are reads of 1 MiB or more that start at a multiple of 2 MiB; every position and length is allowed.
// Drop-behind cannot tell the pages it brought in from those that someone else brought in at the same moment: the latter
// may go too. The other methods have no such window.
//
// Errors: ErrRange, ErrBuffer, io.ErrUnexpectedEOF when the file ends before src.Size, else the file's read error. After
// an error the buffer's content is undefined. Safe for concurrent use with different buffers. It blocks on the device.
// Source: open(2) O_DIRECT, preadv2(2) RWF_DONTCACHE, posix_fadvise(2).
func (c *Cache) ReadBypass(src Source, buf *Buffer, pos, n int64) (ReadStat, error) {
	name := src.Buffered.Name()
	if pos < 0 || n < 0 || pos > src.Size {
		return ReadStat{}, fmt.Errorf("bypass read of %s: %w: position %d, length %d, size %d", name, ErrRange, pos, n, src.Size)
	}
	mem := buf.Bytes()
	if len(mem) < PageSize {
		return ReadStat{}, fmt.Errorf("bypass read of %s: %w: %d bytes", name, ErrBuffer, len(mem))
	}
	n = min(n, src.Size-pos)
	l, err := c.ladderOf(src.Buffered)
	if err != nil {
		return ReadStat{}, fmt.Errorf("bypass read: %w", err)
	}
	if n == 0 {
		return ReadStat{Method: l.view().Best()}, nil
	}
	probe := c.beginVerify(src, pos, min(n, int64(len(mem))))
	for _, r := range l.rungs {
		if !r.usable() {
			continue
		}
		st, err := c.readBy(l, r.method, src, mem, pos, n)
		if err != nil && (errors.Is(err, errSkip) || c.refused(l, r, err)) {
			c.metrics.fallback(r.method)
			continue
		}
		if err != nil {
			return ReadStat{}, fmt.Errorf("bypass read (%s) of %s at %d: %w", r.method, name, pos, err)
		}
		if r.refusals.Load() != 0 {
			r.refusals.Store(0)
		}
		st.Method = r.method
		c.metrics.read(r.method, st.N)
		c.endVerify(l, r, src, probe, &st)
		return st, nil
	}
	// Unreachable while buffered is on every ladder and never refuses.
	return ReadStat{}, fmt.Errorf("bypass read of %s at %d: %w: no method left", name, pos, ErrMethodUnsupported)
}

// ReadFill reads [pos, pos+len(p)) of f through the page cache, which holds it afterwards, and nothing beyond: the
// descriptor's read-ahead is switched off (FADV_RANDOM), for good. Pages that the kernel reads ahead count as resident while
// they are still on their way, and a read that trusts in that waits for the device. Fewer bytes than asked for come with an
// error. It blocks on the device.
func (c *Cache) ReadFill(f vfs.File, p []byte, pos int64) (int, error) {
	if err := c.kernel.Advise(f, 0, 0, AdviseRandom); err != nil && !errors.Is(err, ErrNoKernelFile) {
		return 0, fmt.Errorf("fill read of %s: %w", f.Name(), err)
	}
	got, err := readFull(f, p, pos)
	if err == nil && got < len(p) {
		err = fmt.Errorf("fill read of %s: %w: it ends at %d", f.Name(), io.ErrUnexpectedEOF, pos+int64(got))
	}
	return got, err
}

// refused notes that a method cannot work and says whether the next one should be tried.
func (c *Cache) refused(l *ladder, r *rung, err error) bool {
	if !unsupported(err) || r.method == MethodBuffered {
		return false
	}
	if errors.Is(err, ErrMethodUnsupported) || errors.Is(err, vfs.ErrDirectUnsupported) {
		c.takeOff(l, r, causeUnsupported, err.Error())
		return true
	}
	// EINVAL may be the matter of one odd file (inline data, encryption): only a row of them speaks for the file system.
	c.strike(l, r, causeUnsupported, err.Error())
	return true
}

func (c *Cache) readBy(l *ladder, m Method, src Source, mem []byte, pos, n int64) (ReadStat, error) {
	n = min(n, int64(len(mem)))
	var got int
	var err error
	switch m {
	case MethodDirect:
		return c.readDirect(l, src, mem, pos, n)
	case MethodDontCache:
		got, err = c.readDontCache(src.Buffered, mem[:n], pos)
	case MethodDropBehind:
		got, err = c.readDropBehind(src.Buffered, mem[:n], pos)
	case MethodBuffered:
		got, err = readFull(src.Buffered, mem[:n], pos)
	}
	if err != nil {
		return ReadStat{}, err
	}
	if int64(got) < n {
		return ReadStat{}, short(src, pos+int64(got))
	}
	return ReadStat{N: n}, nil
}

func short(src Source, end int64) error {
	return fmt.Errorf("%w: the file ends at %d, expected %d bytes", io.ErrUnexpectedEOF, end, src.Size)
}

// readFull is ReadAt without the question whether the end of the file is an error.
func readFull(f vfs.File, p []byte, pos int64) (int, error) {
	got, err := f.ReadAt(p, pos)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return got, err
}

// readDirect reads the aligned extent around [pos, pos+n).
//
//	file    ──┬───────┬───────┬───────┬───────┬──┤ src.Size
//	          start   │pos                 end│  stop (aligned up; beyond the file's last byte the read is just short)
//	buffer    0       Off ............ Off+N
func (c *Cache) readDirect(l *ladder, src Source, mem []byte, pos, n int64) (ReadStat, error) {
	if src.Direct == nil {
		return ReadStat{}, errSkip
	}
	a := l.directAlign()
	if l.align.Memory > PageSize { // buffers are page aligned
		return ReadStat{}, fmt.Errorf("%w: memory alignment of %d bytes", ErrMethodUnsupported, l.align.Memory)
	}
	start := alignDown(pos, a)
	end := min(pos+n, start+alignDown(int64(len(mem)), a))
	if end <= pos {
		return ReadStat{}, errSkip // the buffer does not hold one unit
	}
	f, err := src.Direct()
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return ReadStat{}, errSkip // no descriptor left: the one that is open serves
	}
	if err != nil {
		return ReadStat{}, err
	}
	got, err := f.ReadAt(mem[:alignUp(end, a)-start], start)
	if start+int64(got) >= end {
		// All that was asked for is here. What follows is the end of the file, reported as io.EOF or, by file systems
		// that refuse the unaligned second attempt, as EINVAL.
		return ReadStat{N: end - pos, Off: int(pos - start)}, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return ReadStat{}, short(src, start+int64(got))
	}
	return ReadStat{}, err
}

// readDontCache reads with RWF_DONTCACHE. Without read-ahead the read brings in exactly its own pages and drops them
// (measured: 0 % left with 64 KiB to 4 MiB reads at any position; with read-ahead up to 16 MiB stayed beyond the last
// read of a reader that stopped).
func (c *Cache) readDontCache(f vfs.File, p []byte, pos int64) (int, error) {
	if err := c.kernel.Advise(f, 0, 0, AdviseRandom); err != nil {
		return 0, err
	}
	return c.kernel.ReadDontCache(f, p, pos)
}

// readDropBehind reads through the cache and drops what was not there before. A cold run is dropped up to the window's
// border, so that large folios go too; where pages of others lie in the same window, the run ends at them, and without
// read-ahead so do the folios in it.
func (c *Cache) readDropBehind(f vfs.File, p []byte, pos int64) (int, error) {
	e, err := touched(pos, int64(len(p)))
	if err != nil {
		return 0, err
	}
	cold, err := c.coldAround(f, e)
	if err != nil {
		return 0, err
	}
	if err := c.kernel.Advise(f, 0, 0, AdviseRandom); err != nil {
		return 0, err
	}
	got, err := readFull(f, p, pos)
	for _, run := range cold {
		if dropErr := c.kernel.Advise(f, run.off, run.bytes(), AdviseDontNeed); dropErr != nil && err == nil {
			err = dropErr
		}
	}
	return got, err
}

// coldAround is the cold runs of e's windows that a read of e will fill at least in part.
func (c *Cache) coldAround(f vfs.File, e extent) ([]extent, error) {
	own, err := c.count(f, e)
	if err != nil || own.Resident >= own.Pages {
		return nil, err
	}
	runs, err := c.coldRuns(f, extent{alignDown(e.off, WindowBytes), alignUp(e.end, WindowBytes)})
	return slices.DeleteFunc(runs, func(r extent) bool { return r.end <= e.off || r.off >= e.end }), err
}
