package tiering

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

const (
	// syncChunks is how many chunks of the target may be dirty before they are synced and dropped: 8 MiB, on a slow device
	// down to 2 MiB, bound what one sync keeps it from doing, and are no less than the 2 MiB under which dropping leaves
	// pages (see cachectl).
	syncChunks = 8
	// indexBufBytes is the read size for indexes: whole entries of either kind (8 and 12 bytes) and whole pages.
	indexBufBytes = 24 * 4096
	// metadataBytes bounds partition.metadata, two short lines.
	metadataBytes = 4096
)

// metadataName binds a partition directory to a topic id (Kafka's PartitionMetadataFile).
const metadataName = "partition.metadata"

// companions are the files that belong to a .log and move with it when they are there.
var companions = []string{indexSuffix, timeIndexSuffix, txnIndexSuffix}

// Suffixes of a segment's files. The .txnindex is Kafka's list of aborted transactions.
const (
	logSuffix       = ".log"
	indexSuffix     = ".index"
	timeIndexSuffix = ".timeindex"
	txnIndexSuffix  = ".txnindex"
)

// fileName is one file of a segment, below the root of a tier.
func fileName(dir string, base segment.Offset, suffix string) string {
	return fmt.Sprintf("%s/%020d%s", dir, base, suffix)
}

// Migrate moves one sealed and synced segment to another tier: copy to temporary names, verify, commit, publish, hand
// the old copy to Env.Retire. doc.go has the steps and what a crash after each of them leaves.
//
// nil means that readers use the new copy, which is verified and on stable storage. On any error the old copy is as it
// was and still in use, and everything made in the target is removed; what could not be removed is left to Sweep.
// Errors: *StepError around the cause, among them *segment.CorruptError (SourceCorrupt tells whose), ErrOccupied, what
// Env.Publish returned, ctx's error (asked at every chunk).
//
// Two migrations of one segment must not run at the same time; others may. Memory: about 1.2 MiB.
func Migrate(ctx context.Context, job Job, env Env) error {
	return migrate(ctx, job, env, ChunkBytes)
}

func migrate(ctx context.Context, job Job, env Env, chunkBytes int) error {
	if err := job.Validate(); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if env.Publish == nil || env.Retire == nil {
		return errors.New("migrate: Env.Publish and Env.Retire are required")
	}
	m := &migration{job: job, env: env.withDefaults(), buf: segment.ScanBuffer(chunkBytes)}
	defer m.env.At("")
	if err := m.run(ctx); err != nil {
		return fmt.Errorf("migrate %s from %s to %s: %w", fileName(job.Dir, job.Base, logSuffix), job.From.Name, job.To.Name, err)
	}
	m.env.At(job.From.Name)
	m.env.Retire(job, func() error { return RemoveSegment(job.From.FS, job.Dir, job.Base) })
	return nil
}

// migration is one attempt.
type migration struct {
	job   Job
	env   Env
	buf   []byte
	files []copied // companions first, the .log last
	done  int64
	total int64
}

// copied is one file in both tiers.
type copied struct {
	suffix string
	size   int64
	crc    uint32 // CRC32C of what was written
}

func (m *migration) run(ctx context.Context) error {
	if err := m.prepare(); err != nil {
		return err
	}
	err := m.copyAndVerify(ctx)
	if err == nil {
		err = m.commit()
	}
	if err == nil {
		m.env.At(m.job.From.Name) // that of the partition's checkpoints and its appends, as a rule; the new copy's inode was used just now
		err = m.step(StepPublish, m.job.To, m.env.Publish(ctx, m.job))
	}
	if err != nil {
		m.env.At(m.job.To.Name)
		return errors.Join(err, m.abandon())
	}
	return nil
}

// step names the step and the tier of a failure; a cause that is named already keeps its name.
func (m *migration) step(step Step, tier Tier, err error) error {
	var named *StepError
	if err == nil || errors.As(err, &named) {
		return err
	}
	return &StepError{Step: step, Tier: tier.Name, Err: err}
}

func (m *migration) source(suffix string) string { return fileName(m.job.Dir, m.job.Base, suffix) }
func (m *migration) temporary(suffix string) string {
	return m.source(suffix) + segment.MigratingSuffix
}

// prepare looks at both sides, makes the target's directory, and clears what an earlier attempt left there.
func (m *migration) prepare() error {
	if err := m.measure(); err != nil {
		return m.step(StepPrepare, m.job.From, err)
	}
	to := m.job.To
	m.env.At(to.Name)
	switch _, err := to.FS.Stat(m.source(logSuffix)); {
	case err == nil:
		return m.step(StepPrepare, to, fmt.Errorf("%s is there already, a restart resolves it: %w", m.source(logSuffix), ErrOccupied))
	case !errors.Is(err, fs.ErrNotExist):
		return m.step(StepPrepare, to, err)
	}
	if err := to.FS.MkdirAll(m.job.Dir); err != nil {
		return m.step(StepPrepare, to, err)
	}
	if err := m.bindDirectory(); err != nil {
		return err
	}
	m.env.At(to.Name)
	_, err := m.removeTarget()
	return m.step(StepPrepare, to, err)
}

// measure finds the files to copy and their sizes.
func (m *migration) measure() error {
	from := m.job.From.FS
	m.env.At(m.job.From.Name)
	for _, suffix := range append(companions[:len(companions):len(companions)], logSuffix) {
		e, err := from.Stat(m.source(suffix))
		switch {
		case suffix != logSuffix && errors.Is(err, fs.ErrNotExist):
			continue // rebuilt from the .log where it is opened
		case errors.Is(err, fs.ErrNotExist):
			return errors.Join(err, ErrGone)
		case err != nil:
			return err
		case !e.Regular:
			return fmt.Errorf("%s/%s is not a regular file", from.Root(), m.source(suffix))
		case suffix == logSuffix && e.Size != m.job.SizeBytes:
			return m.corrupt(m.job.From, suffix, "size differs from the sealed segment's", m.job.SizeBytes, e.Size)
		}
		m.files = append(m.files, copied{suffix: suffix, size: e.Size})
		m.total += 2 * e.Size
	}
	return nil
}

// bindDirectory carries the topic id over, or refuses a directory that another topic of this name left behind.
func (m *migration) bindDirectory() error {
	from, to, name := m.job.From, m.job.To, m.job.Dir+"/"+metadataName
	m.env.At(from.Name)
	want, err := vfs.ReadFile(from.FS, name, metadataBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // an adopted directory without topic ids
	}
	if err != nil {
		return m.step(StepPrepare, from, err)
	}
	m.env.At(to.Name)
	got, err := vfs.ReadFile(to.FS, name, metadataBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m.step(StepPrepare, to, vfs.WriteFileAtomic(to.FS, name, want))
	case err != nil:
		return m.step(StepPrepare, to, err)
	case !bytes.Equal(bytes.TrimSpace(want), bytes.TrimSpace(got)):
		return m.step(StepPrepare, to, fmt.Errorf("%s/%s names another topic id than that in %s; move the directory away: %w",
			to.FS.Root(), name, from.FS.Root(), ErrOccupied))
	}
	return nil
}

func (m *migration) copyAndVerify(ctx context.Context) error {
	for i := range m.files {
		if err := m.copyFile(ctx, &m.files[i]); err != nil {
			return err
		}
	}
	return m.verify(ctx)
}

// copyFile writes one file under its temporary name and syncs it. The .log's batches are verified on the way, so that a
// damaged source is never carried on.
func (m *migration) copyFile(ctx context.Context, file *copied) (err error) {
	m.env.At(m.job.From.Name)
	src, err := m.env.Open(m.job.From.FS, m.source(file.suffix))
	if err != nil {
		return m.step(StepCopy, m.job.From, m.goneIfMissing(m.job.From, err))
	}
	defer src.Close() // read only: nothing to lose
	m.env.At(m.job.To.Name)
	dst, err := m.job.To.FS.Create(m.temporary(file.suffix))
	if err != nil {
		return m.step(StepCopy, m.job.To, err)
	}
	defer func() { err = m.step(StepCopy, m.job.To, errors.Join(err, dst.Close())) }()
	if file.size > 0 { // no space: known before the first byte
		if err := dst.Allocate(0, file.size); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return m.step(StepCopy, m.job.To, err)
		}
	}
	var check *batchCheck
	if file.suffix == logSuffix {
		check = newBatchCheck(m.job, m.path(m.job.From, logSuffix))
	}
	synced := int64(0)
	for pos := int64(0); pos < file.size; {
		step := m.stepBytes()
		chunk := m.buf[:min(step, file.size-pos)]
		if err := m.readChunk(ctx, StepCopy, m.job.From, src, file.suffix, chunk, pos); err != nil {
			return err
		}
		if check != nil {
			if err := check.write(chunk); err != nil {
				return m.step(StepCopy, m.job.From, err)
			}
		}
		file.crc = crc32.Update(file.crc, castagnoli, chunk)
		if err := m.writeChunk(ctx, dst, file.suffix, chunk, pos); err != nil {
			return err
		}
		pos += int64(len(chunk))
		if pos-synced >= syncChunks*max(step, int64(len(m.buf))/4) {
			if err := m.settle(dst, synced, pos); err != nil {
				return err
			}
			synced = pos
		}
		m.advance(StepCopy, len(chunk))
	}
	if check != nil {
		if err := check.finish(m.job.Next); err != nil {
			return m.step(StepCopy, m.job.From, err)
		}
	}
	return m.settle(dst, synced, file.size)
}

// stepBytes is the size of the next transfer.
func (m *migration) stepBytes() int64 {
	return min(int64(len(m.buf)), max(m.env.Gate.Step()&^4095, 4096))
}

// settle makes what was written durable and takes it out of the page cache. A sync that failed is final: the copy is
// given up, never synced again.
func (m *migration) settle(dst vfs.File, from, to int64) error {
	m.env.At(m.job.To.Name)
	if err := dst.SyncData(); err != nil {
		return m.step(StepCopy, m.job.To, err)
	}
	if to > from {
		m.env.Drop(dst, from, to-from)
	}
	return nil
}

func (m *migration) readChunk(ctx context.Context, step Step, tier Tier, r Reader, suffix string, p []byte, pos int64) error {
	done, err := m.wait(ctx, Transfer{Tier: tier.Name, Name: m.source(suffix), Pos: pos, Bytes: int64(len(p))})
	if err != nil {
		return m.step(step, tier, err)
	}
	defer done()
	n, err := r.ReadAt(p, pos)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		err = m.corrupt(tier, suffix, "file is shorter than it was", pos+int64(len(p)), pos+int64(n))
	}
	return m.step(step, tier, m.goneIfMissing(tier, err))
}

// goneIfMissing is for a file of the source that was there when the migration began: retention has taken the segment.
func (m *migration) goneIfMissing(tier Tier, err error) error {
	if tier.Name == m.job.From.Name && errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, ErrGone)
	}
	return err
}

// wait asks the gate, and ctx whatever the gate does.
func (m *migration) wait(ctx context.Context, t Transfer) (done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.env.At(t.Tier)
	return m.env.Gate.Wait(ctx, t)
}

func (m *migration) writeChunk(ctx context.Context, dst vfs.File, suffix string, p []byte, pos int64) error {
	done, err := m.wait(ctx, Transfer{Tier: m.job.To.Name, Write: true, Name: m.temporary(suffix), Pos: pos, Bytes: int64(len(p))})
	if err != nil {
		return m.step(StepCopy, m.job.To, err)
	}
	defer done()
	if _, err := dst.WriteAt(p, pos); err != nil {
		return m.step(StepCopy, m.job.To, err)
	}
	m.env.WriteBack(dst, pos, int64(len(p)))
	return nil
}

func (m *migration) advance(step Step, n int) {
	m.done += int64(n)
	m.env.Progress(Progress{Step: step, DoneBytes: m.done, TotalBytes: m.total})
}

// verify reads the copies back from the device: each must be what was written, and the indexes must fit the batches.
// Since the copies equal what was read, an index that does not fit was damaged, or lied, before.
func (m *migration) verify(ctx context.Context) error {
	m.env.At(m.job.To.Name)
	check := newBatchCheck(m.job, m.path(m.job.To, logSuffix))
	var indexes []*indexCheck
	for _, file := range m.files {
		switch file.suffix {
		case indexSuffix, timeIndexSuffix:
			index, closeIndex, err := m.openIndex(ctx, file)
			if err != nil {
				return err
			}
			defer closeIndex()
			indexes = append(indexes, index)
		}
	}
	check.batch = func(pos int64, h segment.BatchHeader) error {
		for _, index := range indexes {
			if err := index.batch(pos, h); err != nil {
				return m.step(StepVerify, m.job.From, err)
			}
		}
		return nil
	}
	for _, file := range m.files {
		var batches *batchCheck
		if file.suffix == logSuffix {
			batches = check
		}
		if err := m.readBack(ctx, file, batches); err != nil {
			return err
		}
	}
	if err := check.finish(m.job.Next); err != nil {
		return m.step(StepVerify, m.job.To, err)
	}
	for _, index := range indexes {
		if err := index.finish(check.next); err != nil {
			return m.step(StepVerify, m.job.From, err)
		}
	}
	return nil
}

// readBack compares one copy with what was written to it; batches, when not nil, sees its bytes before the sum is known.
func (m *migration) readBack(ctx context.Context, file copied, batches *batchCheck) error {
	r, err := m.env.Open(m.job.To.FS, m.temporary(file.suffix))
	if err != nil {
		return m.step(StepVerify, m.job.To, err)
	}
	defer r.Close() // read only: nothing to lose
	var crc uint32
	for pos := int64(0); pos < file.size; {
		chunk := m.buf[:min(m.stepBytes(), file.size-pos)]
		if err := m.readChunk(ctx, StepVerify, m.job.To, r, file.suffix, chunk, pos); err != nil {
			return err
		}
		crc = crc32.Update(crc, castagnoli, chunk)
		if batches != nil {
			if err := batches.write(chunk); err != nil {
				return m.step(StepVerify, m.job.To, err)
			}
		}
		pos += int64(len(chunk))
		m.advance(StepVerify, len(chunk))
	}
	if crc != file.crc {
		return m.step(StepVerify, m.job.To, m.corrupt(m.job.To, file.suffix, "copy differs from what was written",
			fmt.Sprintf("%08x", file.crc), fmt.Sprintf("%08x", crc)))
	}
	return nil
}

// openIndex gives a check that reads an index's copy along with the batches.
func (m *migration) openIndex(ctx context.Context, file copied) (*indexCheck, func(), error) {
	r, err := m.env.Open(m.job.To.FS, m.temporary(file.suffix))
	if err != nil {
		return nil, nil, m.step(StepVerify, m.job.To, err)
	}
	read := func(p []byte, off int64) error {
		return m.readChunk(ctx, StepVerify, m.job.To, r, file.suffix, p, off)
	}
	return &indexCheck{path: m.path(m.job.From, file.suffix), base: m.job.Base, time: file.suffix == timeIndexSuffix, dense: m.job.Dense,
		r: &chunkReader{read: read, buf: segment.ScanBuffer(int(min(indexBufBytes, file.size))), size: file.size}}, func() { r.Close() }, nil
}

// commit gives the copies their names: companions first and made durable, with the directory itself (an earlier start may
// have been killed between making and syncing it), then the .log, whose name is the commit point.
func (m *migration) commit() error {
	to := m.job.To.FS
	m.env.At(m.job.To.Name)
	for _, file := range m.files {
		if file.suffix == logSuffix {
			if err := syncNames(to, m.job.Dir); err != nil {
				return m.step(StepCommit, m.job.To, err)
			}
		}
		if err := to.Rename(m.temporary(file.suffix), m.source(file.suffix)); err != nil {
			return m.step(StepCommit, m.job.To, err)
		}
	}
	return m.step(StepCommit, m.job.To, to.SyncDir(m.job.Dir))
}

// syncNames makes the names in dir, and dir's own, durable.
func syncNames(fsys vfs.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}

// abandon removes everything this attempt made, the .log first: the old copy is the one in use.
func (m *migration) abandon() error {
	removed, err := m.removeTarget()
	if removed && err == nil {
		err = m.job.To.FS.SyncDir(m.job.Dir)
	}
	if err != nil {
		return fmt.Errorf("remove the unfinished copy (the next start does it): %w", err)
	}
	return nil
}

// removeTarget removes the segment's files, temporary or not, from the target.
func (m *migration) removeTarget() (removed bool, err error) {
	var errs []error
	for _, suffix := range append([]string{logSuffix}, companions...) {
		for _, name := range []string{m.source(suffix), m.temporary(suffix)} {
			switch err := m.job.To.FS.Remove(name); {
			case err == nil:
				removed = true
			case !errors.Is(err, fs.ErrNotExist):
				errs = append(errs, err)
			}
		}
	}
	return removed, errors.Join(errs...)
}

func (m *migration) path(tier Tier, suffix string) string {
	return tier.FS.Root() + "/" + m.source(suffix)
}

func (m *migration) corrupt(tier Tier, suffix, text string, want, got any) error {
	return &segment.CorruptError{Path: m.path(tier, suffix), Pos: -1, Want: want, Got: got, Err: errors.New(text)}
}
