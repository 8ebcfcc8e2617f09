package cachectl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"lagoon/internal/vfs"
)

const (
	// probeName is the scratch file. Its suffix marks leftovers of a crash, which every start sweeps.
	probeName = "lagoon-probe.tmp"
	// probeBytes is two windows and a tail that is no multiple of anything.
	probeBytes = 2*WindowBytes + 1234
	probeChunk = WindowBytes
	// probeAttempts: a page may be pinned for a moment (write-back just ended, another process walks the file system).
	probeAttempts = 3
)

// Probe tries every method of the ladder on a scratch file in fs's root, removes the file, and installs the ladder that
// live reads of this file system then use, in place of an earlier one. A method that cannot work, returns wrong bytes,
// leaves pages behind or evicts pages that were resident is left out. Where nothing can be dropped (tmpfs) only buffered
// remains.
//
// When the scratch file cannot be written (full or read-only disk) the error says so, and the full ladder is installed:
// live reads correct it. Call it at start, before reads of this file system; it takes some 10 ms. It waits for the device.
func (c *Cache) Probe(fsys vfs.FS) (_ Ladder, err error) {
	p := prober{c: c, fs: fsys}
	defer func() {
		if cleanErr := p.clean(); cleanErr != nil && err == nil {
			err = fmt.Errorf("probe %s: %w", fsys.Root(), cleanErr)
		}
	}()
	if err := p.prepare(); err != nil {
		if p.l == nil {
			return newLadder(fsys.Root(), 0, c.opt.ReadMode).view(), fmt.Errorf("probe %s: %w", fsys.Root(), err)
		}
		c.install(p.l)
		return p.l.view(), fmt.Errorf("probe %s: %w", fsys.Root(), err)
	}
	if len(p.l.rungs) > 1 { // a plain read needs no proof
		if err := p.run(); err != nil {
			c.install(p.l)
			return p.l.view(), fmt.Errorf("probe %s: %w", fsys.Root(), err)
		}
	}
	p.l.probed = true
	c.install(p.l)
	view := p.l.view()
	c.opt.Logger.Info("read methods were probed", "file_system", view.FileSystem, "method", string(view.Best()),
		"direct_align_bytes", p.l.directAlign(), "measured_align_bytes", view.MeasuredAlign)
	return view, nil
}

// prober is one run of Probe.
type prober struct {
	c       *Cache
	fs      vfs.FS
	created bool
	file    vfs.File // buffered, own description
	direct  vfs.File // nil until asked for
	pool    *Pool
	buf     *Buffer
	content []byte
	l       *ladder
}

// prepare writes the scratch file and finds the file system; p.l is set as soon as that is known.
func (p *prober) prepare() error {
	if err := p.fs.Remove(probeName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove an earlier scratch file: %w", err)
	}
	w, err := p.fs.Create(probeName)
	if err != nil {
		return err
	}
	p.created = true
	if err := p.findLadder(w); err != nil {
		return errors.Join(err, w.Close())
	}
	if len(p.l.rungs) == 1 { // a plain read needs no proof, and no bytes to prove it with
		return w.Close()
	}
	p.content = make([]byte, probeBytes)
	seed := uint32(2463534242)
	for i := range p.content { // xorshift: no page equals another, so a read from a wrong position shows
		seed ^= seed << 13
		seed ^= seed >> 17
		seed ^= seed << 5
		p.content[i] = byte(seed)
	}
	if _, err := w.WriteAt(p.content, 0); err != nil {
		return errors.Join(err, w.Close())
	}
	if err := errors.Join(w.SyncData(), w.Close()); err != nil {
		return err
	}
	if p.file, err = p.fs.Open(probeName, vfs.ReadOnly); err != nil {
		return err
	}
	if p.pool, err = NewPool(probeChunk, probeChunk); err != nil {
		return err
	}
	buf, ok := p.pool.TryGet()
	if !ok {
		return fmt.Errorf("%w: no memory for %d bytes", ErrBuffer, probeChunk)
	}
	p.buf = buf
	return nil
}

func (p *prober) findLadder(f vfs.File) error {
	device, err := p.c.kernel.FileSystem(f)
	if errors.Is(err, ErrNoKernelFile) {
		p.l = memoryLadder()
		p.l.name = p.fs.Root()
		return nil
	}
	if err != nil {
		return err
	}
	p.l = newLadder(p.fs.Root(), device, p.c.opt.ReadMode)
	return nil
}

func (p *prober) clean() error {
	var errs []error
	if p.buf != nil {
		p.buf.Release()
	}
	if p.pool != nil {
		p.pool.Close()
	}
	for _, f := range []vfs.File{p.direct, p.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if p.created {
		errs = append(errs, p.fs.Remove(probeName))
	}
	return errors.Join(errs...)
}

func (p *prober) run() error {
	dropped, err := p.cold()
	if err != nil {
		return err
	}
	if !dropped {
		for _, r := range p.l.rungs {
			if r.method != MethodBuffered {
				p.refuse(r, "nothing can be dropped from the cache of this file system")
			}
		}
		return nil
	}
	for _, r := range p.l.rungs {
		if r.method == MethodBuffered {
			continue
		}
		var why string
		for range probeAttempts {
			if why, err = p.try(r.method); err != nil {
				return err
			}
			if why == "" {
				break
			}
		}
		if why != "" {
			p.refuse(r, why)
		}
	}
	return nil
}

// refuse is takeOff without the alarm: at start a missing method is a fact, not an event.
func (p *prober) refuse(r *rung, why string) {
	r.off.Store(&why)
	p.c.opt.Logger.Info("read method was not usable", "file_system", p.l.name, "method", string(r.method), "why", why)
}

// cold evicts the scratch file and says whether that worked.
func (p *prober) cold() (bool, error) {
	var left int64
	for range probeAttempts {
		out, err := p.c.Evict(p.file, 0, probeBytes)
		if err != nil {
			return false, err
		}
		if left = out.LeftPages; left == 0 {
			return true, nil
		}
	}
	return false, nil
}

// try runs one method through its promises. why is empty when it kept them; err ends the whole probe.
func (p *prober) try(m Method) (why string, err error) {
	if m == MethodDirect {
		if why, err := p.measureDirect(); why != "" || err != nil {
			return why, err
		}
	}
	const half = WindowBytes / 2
	reads := []struct {
		what   string
		pos, n int64
		warm   int64 // bytes from pos on made resident first
	}{
		{what: "an aligned read", pos: 0, n: probeChunk},
		{what: "an unaligned read", pos: half + 4711, n: half},
		{what: "a read of the file's tail", pos: probeBytes - half, n: half},
		{what: "a read over resident pages", pos: WindowBytes, n: half, warm: 16 * PageSize},
	}
	for _, rd := range reads {
		if ok, err := p.cold(); err != nil || !ok {
			return "pages could not be dropped before " + rd.what, err
		}
		before, err := p.warm(rd.pos, rd.warm)
		if err != nil {
			return "", err
		}
		src := Source{Buffered: p.file, Direct: p.openDirect, Size: probeBytes}
		st, err := p.c.readBy(p.l, m, src, p.buf.Bytes(), rd.pos, rd.n)
		if err != nil {
			return fmt.Sprintf("%s failed: %v", rd.what, err), nil
		}
		if got := p.buf.Bytes()[st.Off:][:st.N]; !bytes.Equal(got, p.content[rd.pos:][:st.N]) {
			return rd.what + " returned wrong bytes", nil
		}
		if why, err := p.judge(rd.what, rd.pos, rd.warm, before); why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

// warm reads n bytes at pos through the cache, those pages alone, and returns how many pages of the file are resident.
func (p *prober) warm(pos, n int64) (int64, error) {
	if n > 0 {
		if err := p.c.kernel.Advise(p.file, 0, 0, AdviseRandom); err != nil {
			return 0, err
		}
		if _, err := readFull(p.file, p.buf.Bytes()[:n], pos); err != nil {
			return 0, err
		}
	}
	r, err := p.c.Residency(p.file, 0, probeBytes)
	return r.Resident, err
}

func (p *prober) judge(what string, pos, warm, before int64) (why string, err error) {
	all, err := p.c.Residency(p.file, 0, probeBytes)
	if err != nil {
		return "", err
	}
	if all.Resident > before {
		return fmt.Sprintf("%s left %d pages behind", what, all.Resident-before), nil
	}
	kept, err := p.c.Residency(p.file, pos, warm)
	if err != nil {
		return "", err
	}
	if kept.Resident < kept.Pages {
		return fmt.Sprintf("%s evicted %d pages that were resident", what, kept.Pages-kept.Resident), nil
	}
	return "", nil
}

// measureDirect asks what alignment direct reads need and finds out what they accept.
func (p *prober) measureDirect() (why string, err error) {
	told, err := p.c.kernel.DirectAlign(p.file)
	if err != nil {
		if unsupported(err) {
			return err.Error(), nil
		}
		return "", err
	}
	p.l.align = told
	f, err := p.openDirect()
	if err != nil {
		return "open: " + err.Error(), nil
	}
	for _, align := range slices.Compact([]int64{512, 1024, 2048, PageSize, max(PageSize, told.Offset)}) {
		if align > probeChunk {
			break
		}
		mem := p.buf.Bytes()[:align]
		n, err := f.ReadAt(mem, align)
		if err != nil || int64(n) != align || !bytes.Equal(mem, p.content[align:][:align]) {
			continue
		}
		// A file system may serve what is not aligned through the cache.
		if r, err := p.c.Residency(p.file, 0, probeBytes); err != nil {
			return "", err
		} else if r.Resident > 0 {
			if ok, err := p.cold(); err != nil || !ok {
				return "its pages could not be dropped", err
			}
			continue
		}
		p.l.minimum = align
		return "", nil
	}
	return "no alignment was accepted without touching the page cache", nil
}

func (p *prober) openDirect() (vfs.File, error) {
	if p.direct != nil {
		return p.direct, nil
	}
	f, err := p.fs.Open(probeName, vfs.Direct)
	if err != nil {
		return nil, err
	}
	p.direct = f
	return f, nil
}
