package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"lagoon/cachectl"
	"lagoon/internal/vfs"
)

// readStep is how much Replay reads at once, unless a round is larger.
const readStep = 1 << 20

// Replayed is what Replay found.
type Replayed struct {
	Rounds, Entries int64
	Bytes           int64   // of the entries
	Torn            int64   // rounds at the end that are there in part: nobody was told that they are stable
	Generation      uint64  // the newest
	Damaged         []error // *DamageError: rounds that were stable and are not there any more
}

// Replay reads both files and gives apply all entries of all rounds, in the order in which they were committed. data is valid during the call.
// Where there is no journal it gives nothing. It changes nothing: what it gave is to be made stable before Open, else it is given again.
// Applying an entry twice, or one that the segment file holds already, must come to the same.
// Errors: that of apply; those of fsys, one of reading included; ErrVersion, before anything is given.
func Replay(fsys vfs.FS, apply func(e Entry, data []byte) error) (out Replayed, err error) {
	var files []*replayFile
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.close())
		}
	}()
	for _, name := range fileNames {
		f, err := openReplay(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Replayed{}, err
		}
		files = append(files, f)
	}
	for _, f := range files {
		if err := f.begin(&out); err != nil {
			return out, err
		}
		out.Generation = max(out.Generation, f.header.generation)
	}
	if len(files) == 2 && files[1].header.generation < files[0].header.generation {
		files[0], files[1] = files[1], files[0]
	}
	next := uint64(1) // after the older file
	for i, f := range files {
		if i == len(files)-1 { // also where the other file is missing
			f.follows(next, &out)
		}
		if next, err = f.replay(apply, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// replayFile is one file while it is read.
type replayFile struct {
	file   vfs.File
	path   string
	size   int64 // whole blocks
	header header
	valid  bool  // it has a header, or a round that stands in for it
	start  int64 // of the first round

	buf    []byte // holds the file from bufPos on
	bufPos int64
	mem    []byte
	free   func()
}

// openReplay opens a file around the page cache if possible: nobody reads these bytes a second time.
func openReplay(fsys vfs.FS, name string) (*replayFile, error) {
	file, err := fsys.Open(name, vfs.Direct)
	if err == nil {
		var align vfs.Alignment
		if align, err = vfs.DirectAlign(file); err != nil || align.Off > Block || align.Mem > cachectl.PageSize {
			err = errors.Join(vfs.ErrDirectUnsupported, file.Close())
		}
	}
	if errors.Is(err, vfs.ErrDirectUnsupported) {
		file, err = fsys.Open(name, vfs.ReadOnly)
	}
	if err != nil {
		return nil, err
	}
	f := &replayFile{file: file, path: pathOf(fsys, name), start: Block}
	if f.size, err = file.Size(); err == nil {
		f.size -= f.size % Block
		f.mem, f.free, err = cachectl.MapMemory(readStep)
	}
	if err == nil {
		var b []byte
		if b, err = f.read(0, Block); err == nil {
			f.header, f.valid, err = decodeHeader(b)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.path, err), f.close())
	}
	return f, nil
}

func (f *replayFile) close() error {
	if f.free != nil {
		f.free()
	}
	return f.file.Close()
}

// read gives n bytes from pos on, or what the file has of them. They are valid until the next read.
func (f *replayFile) read(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), max(0, f.size-pos)))
	if at := pos - f.bufPos; at >= 0 && at+int64(n) <= int64(len(f.buf)) {
		return f.buf[at : at+int64(n)], nil
	}
	if n > len(f.mem) {
		f.free()
		f.buf, f.mem, f.free = nil, nil, nil
		var err error
		if f.mem, f.free, err = cachectl.MapMemory(int64(padded(n))); err != nil {
			return nil, err
		}
	}
	got, err := f.file.ReadAt(f.mem, pos)
	if err != nil && err != io.EOF {
		return nil, err
	}
	f.buf, f.bufPos = f.mem[:got], pos
	return f.buf[:min(n, got)], nil
}

// round reads the round at pos. want says which headers may be those of one; the checksums of others are not computed.
func (f *replayFile) round(pos int64, want func(roundHeader) bool) (h roundHeader, b []byte, ok bool, err error) {
	if b, err = f.read(pos, Block); err != nil {
		return h, nil, false, err
	}
	if h, ok = decodeRoundHeader(b); !ok || !want(h) {
		return h, nil, false, nil
	}
	if b, err = f.read(pos, h.length); err != nil || len(b) < h.length {
		return h, nil, false, err
	}
	return h, b, roundHolds(h, b), nil
}

// find looks for a round at pos or a later block. pos is the file's size when there is none.
func (f *replayFile) find(pos int64, want func(roundHeader) bool) (int64, roundHeader, error) {
	for ; pos < f.size; pos += Block {
		h, _, ok, err := f.round(pos, want)
		if ok || err != nil {
			return pos, h, err
		}
	}
	return f.size, roundHeader{}, nil
}

// begin finds a stand-in for a header that cannot be read: the first round there is, since the newest ones lie in front.
func (f *replayFile) begin(out *Replayed) error {
	if f.valid {
		return nil
	}
	pos, h, err := f.find(Block, func(roundHeader) bool { return true })
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if pos >= f.size {
		out.damaged(f, DamageError{End: Block, Reason: "neither a header nor a round"})
		return nil
	}
	out.damaged(f, DamageError{End: pos, Reason: "no header"})
	f.header, f.valid, f.start = header{h.generation, h.key, h.sequence}, true, pos
	return nil
}

// follows says what is missing between the older file's rounds, before next, and those of f.
func (f *replayFile) follows(next uint64, out *Replayed) {
	switch first := f.header.first; {
	case first == 0 || first == next:
	case next < first:
		out.damaged(f, DamageError{First: next, Next: first, Reason: "the other file ends before these"})
	default:
		out.damaged(f, DamageError{Reason: fmt.Sprintf("it begins with round %d, and the other file holds rounds up to %d", first, next-1)})
	}
}

// replay gives the rounds of the file and returns the sequence number after the last one.
func (f *replayFile) replay(apply func(e Entry, data []byte) error, out *Replayed) (next uint64, err error) {
	next = max(f.header.first, 1)
	if !f.valid || f.header.first == 0 {
		return next, nil
	}
	ours := func(h roundHeader) bool { return h.generation == f.header.generation && h.key == f.header.key }
	for pos := f.start; pos < f.size; {
		h, b, ok, err := f.round(pos, func(h roundHeader) bool { return ours(h) && h.sequence == next })
		if err != nil {
			return next, fmt.Errorf("%s: %w", f.path, err)
		}
		if ok {
			if err := giveRound(h, b, apply, out); err != nil {
				return next, fmt.Errorf("%s, round %d: %w", f.path, h.sequence, err)
			}
			pos, next = pos+int64(padded(h.length)), next+1
			continue
		}
		torn := ours(h) && h.sequence == next
		good, h, err := f.find(pos, func(h roundHeader) bool { return ours(h) && h.sequence >= next })
		if err != nil {
			return next, fmt.Errorf("%s: %w", f.path, err)
		}
		if good >= f.size {
			if torn {
				out.Torn++
			}
			break
		}
		out.damaged(f, DamageError{Pos: pos, End: good, First: next, Next: h.sequence, Reason: "bad rounds before a good one"})
		pos, next = good, h.sequence
	}
	return next, nil
}

// giveRound applies the entries of a round that roundHolds.
func giveRound(h roundHeader, b []byte, apply func(e Entry, data []byte) error, out *Replayed) error {
	for b = b[roundHeaderBytes:]; len(b) > 0; {
		e, size, _ := decodeEntry(b)
		if err := apply(e, b[size:size+e.Bytes:size+e.Bytes]); err != nil {
			return fmt.Errorf("%s, segment %d at byte %d: %w", e.Dir, e.Base, e.Pos, err)
		}
		b = b[size+e.Bytes:]
		out.Entries++
		out.Bytes += int64(e.Bytes)
	}
	out.Rounds++
	return nil
}

func (r *Replayed) damaged(f *replayFile, e DamageError) {
	e.Path = f.path
	r.Damaged = append(r.Damaged, &e)
}
