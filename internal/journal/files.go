package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

const (
	zeroStep  = 1 << 20  // bytes of one write while a file is made
	zeroBurst = 16 << 20 // and between two syncs, so that dirty pages do not pile up
)

// stored is what a file has before it is used.
type stored struct {
	there  bool
	size   int64
	header header
	valid  bool // it has a header
}

// Open opens the journal in the root of fsys, empty: for after Replay, once all that it gave is stable in the segment files. It makes the files
// that are missing, of another size or without a header, which writes them in full; the older one is emptied first. Removes what an
// interrupted Open left. Errors: ErrOptions, ErrVersion, ENOSPC with what to do about it, those of fsys.
func Open(fsys vfs.FS, opt Options) (*Journal, error) { return open(fsys, opt, randomKey) }

func open(fsys vfs.FS, opt Options, newKey func() uint64) (*Journal, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	mem, free, err := cachectl.MapMemory(int64(opt.MaxRound) + Block)
	if err != nil {
		return nil, fmt.Errorf("memory of the commit journal: %w", err)
	}
	j := &Journal{opt: opt, newKey: newKey, buf: mem[:opt.MaxRound:opt.MaxRound], block: mem[opt.MaxRound:], free: free}
	if err := j.openFiles(fsys); err != nil {
		free()
		return nil, errors.Join(err, j.closeFiles())
	}
	return j, nil
}

func (j *Journal) openFiles(fsys vfs.FS) error {
	if err := removeTemporary(fsys); err != nil {
		return err
	}
	was, older, err := look(fsys)
	if err != nil {
		return err
	}
	j.head.generation = max(was[0].header.generation, was[1].header.generation)
	for _, file := range []int{older, 1 - older} {
		if err := j.openEmpty(fsys, file, was[file]); err != nil {
			return err
		}
	}
	j.emptied(older)
	return nil
}

// look reads both headers. The older file is the one with the lower generation, or without any.
func look(fsys vfs.FS) (was [2]stored, older int, err error) {
	for i, name := range fileNames {
		if was[i], err = lookAt(fsys, name); err != nil {
			return was, 0, err
		}
	}
	if was[1].header.generation < was[0].header.generation {
		older = 1
	}
	return was, older, nil
}

func lookAt(fsys vfs.FS, name string) (s stored, err error) {
	f, err := fsys.Open(name, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return stored{}, nil
	}
	if err != nil {
		return stored{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s.there = true
	if s.size, err = f.Size(); err != nil {
		return stored{}, err
	}
	b := make([]byte, headerBytes)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return stored{}, err
	}
	if s.header, s.valid, err = decodeHeader(b[:n]); err != nil {
		return stored{}, fmt.Errorf("%s: %w", pathOf(fsys, name), err)
	}
	return s, nil
}

// openEmpty opens a file with a new header and no rounds, making it if need be.
func (j *Journal) openEmpty(fsys vfs.FS, file int, was stored) error {
	remake := !was.valid || was.size != j.opt.Bytes
	if remake {
		if err := j.make(fsys, fileNames[file]); err != nil {
			return err
		}
	}
	f, direct, err := openSync(fsys, fileNames[file])
	if err != nil {
		return err
	}
	j.files[file], j.direct[file] = f, direct
	if remake {
		return nil
	}
	return j.writeHeader(file, j.emptyHeader())
}

// openSync opens a file around the page cache, or through it where that is not possible with blocks of ours.
func openSync(fsys vfs.FS, name string) (f vfs.File, direct bool, err error) {
	if f, err = fsys.Open(name, vfs.DirectSync); err == nil {
		var align vfs.Alignment
		if align, err = vfs.DirectAlign(f); err == nil && align.Off <= Block && align.Mem <= cachectl.PageSize {
			return f, true, nil
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = vfs.ErrDirectUnsupported
		}
	}
	if !errors.Is(err, vfs.ErrDirectUnsupported) {
		return nil, false, err
	}
	f, err = fsys.Open(name, vfs.ReadWrite)
	return f, false, err
}

// make puts a file with an empty header and zeros, all of them written, in the place of name.
func (j *Journal) make(fsys vfs.FS, name string) error {
	tmp := name + tmpSuffix
	h := j.emptyHeader()
	err := j.writeNew(fsys, tmp, h)
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err == nil {
		err = fsys.SyncDir(".")
	}
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("no space in %s for a commit journal of two files of %d bytes; free some, or configure a smaller one: %w", fsys.Root(), j.opt.Bytes, err)
		}
		return errors.Join(err, removeTemporary(fsys))
	}
	j.head = h
	return nil
}

func (j *Journal) writeNew(fsys vfs.FS, tmp string, h header) (err error) {
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// In one piece, if the file system has one; and it tells early that there is no space.
	if err := f.Allocate(0, j.opt.Bytes); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	zeros := j.buf[:min(len(j.buf), zeroStep)] // no round was begun yet
	for pos := int64(0); pos < j.opt.Bytes; {
		end := min(j.opt.Bytes, pos+zeroBurst)
		if err := j.writeZeros(f, zeros, pos, end); err != nil {
			return err
		}
		pos = end
	}
	h.encode(j.block)
	if _, err := f.WriteAt(j.block, 0); err != nil {
		return err
	}
	return f.SyncData()
}

// writeZeros fills [pos, end) durably.
func (j *Journal) writeZeros(f vfs.File, zeros []byte, pos, end int64) error {
	for at := pos; at < end; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), end-at)], at); err != nil {
			return err
		}
	}
	if err := f.SyncData(); err != nil {
		return err
	}
	j.drop(f, pos, end-pos)
	return nil
}

func removeTemporary(fsys vfs.FS) error {
	for _, name := range fileNames {
		if err := fsys.Remove(name + tmpSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Remove takes the journal away durably, for a directory that shall have none any more: after Replay, once all that it gave is stable in the
// segment files. Both files are emptied first, so that a crash in between leaves nothing that looks like damage. Errors: ErrVersion, those of fsys.
func Remove(fsys vfs.FS) error {
	if err := removeTemporary(fsys); err != nil {
		return err
	}
	was, older, err := look(fsys)
	if err != nil {
		return err
	}
	generation := max(was[0].header.generation, was[1].header.generation)
	for _, file := range []int{older, 1 - older} {
		if was[file].valid {
			generation++
			if err := emptyOne(fsys, fileNames[file], header{generation: generation, key: randomKey()}); err != nil {
				return err
			}
		}
	}
	for i, name := range fileNames {
		if !was[i].there {
			continue
		}
		if err := fsys.Remove(name); err != nil {
			return err
		}
	}
	return fsys.SyncDir(".")
}

func emptyOne(fsys vfs.FS, name string, h header) (err error) {
	f, err := fsys.Open(name, vfs.ReadWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block := make([]byte, Block)
	h.encode(block)
	if _, err := f.WriteAt(block, 0); err != nil {
		return err
	}
	return f.SyncData()
}

func pathOf(fsys vfs.FS, name string) string { return fsys.Root() + "/" + name }
