package vfs

import (
	"fmt"
	"path"
	"sync/atomic"
)

// Injector decides the fate of calls. Fault is asked before each one: nil lets it pass, an error is what the caller
// gets, wrapped in *fs.PathError, and the call does not happen. A *ShortWrite error lets a part of a write happen.
// Fault must be safe for concurrent use.
type Injector interface {
	Fault(op Op) error
}

// InjectorFunc makes a function an Injector.
type InjectorFunc func(op Op) error

// Fault calls fn.
func (fn InjectorFunc) Fault(op Op) error { return fn(op) }

// Injectors asks each in turn; the first error counts. The later ones do not see that call.
type Injectors []Injector

// Fault implements Injector.
func (list Injectors) Fault(op Op) error {
	for _, inj := range list {
		if err := inj.Fault(op); err != nil {
			return err
		}
	}
	return nil
}

// WithFaults returns fs with every call, of its files as well, subject to inj.
// Over a Mem a SyncData that is made to fail also loses the file's unsynced bytes, as the kernel does (Mem.DropCaches).
// Close and the Closer of Lock release their resource even when made to fail. Reads by descriptor (Fd) are not seen.
func WithFaults(fs FS, inj Injector) FS { return &hookFS{fs: fs, before: inj.Fault} }

// ShortWrite is an injected error that lets the first Bytes of the write happen (at most all but one).
type ShortWrite struct {
	Bytes int
	Err   error
}

func (e *ShortWrite) Error() string { return fmt.Sprintf("%v after %d bytes", e.Err, e.Bytes) }

// Unwrap gives Err.
func (e *ShortWrite) Unwrap() error { return e.Err }

// Fault is an Injector that fails one matching call, or every one from some point on. Set the fields before use.
//
//	&vfs.Fault{Kinds: vfs.OpSync, Name: "*/*.log", Nth: 3, Err: syscall.EIO}     // the third sync of a log, once
//	&vfs.Fault{Kinds: vfs.OpWrite, Err: syscall.ENOSPC, Sticky: true}            // the disk is full
//	&vfs.Fault{Kinds: vfs.OpWrite, Err: &vfs.ShortWrite{100, syscall.ENOSPC}}    // 100 bytes still fit
type Fault struct {
	Kinds  Kind   // which calls; 0 = OpAny
	Name   string // path.Match pattern on the name (or the new name of a rename); "" = all. "*" does not cross "/"
	Nth    int64  // the matching call to fail, from 1; 0 = 1
	Sticky bool   // and all matching ones after it
	Err    error  // what the caller gets

	seen, fired atomic.Int64
}

// Fault implements Injector.
func (f *Fault) Fault(op Op) error {
	if !f.matches(op) {
		return nil
	}
	seen := f.seen.Add(1)
	nth := max(f.Nth, 1)
	if seen < nth || seen > nth && !f.Sticky {
		return nil
	}
	f.fired.Add(1)
	return f.Err
}

func (f *Fault) matches(op Op) bool {
	if f.Kinds != 0 && f.Kinds&op.Kind == 0 {
		return false
	}
	if f.Name == "" {
		return true
	}
	for _, name := range []string{op.Name, op.To} {
		ok, err := path.Match(f.Name, name)
		if err != nil {
			panic("vfs: bad pattern in Fault.Name: " + f.Name)
		}
		if ok {
			return true
		}
	}
	return false
}

// Fired counts the calls made to fail: a test asserts that its fault happened at all.
func (f *Fault) Fired() int64 { return f.fired.Load() }

// Seen counts the calls that matched.
func (f *Fault) Seen() int64 { return f.seen.Load() }

// PowerCut is an Injector that takes the power away after a number of mutating calls (OpMutating): every later call,
// reads too, fails with ErrPowerCut until the test crashes the Mem below. After 0 never cuts: such a run counts the
// points at which the next runs can cut.
type PowerCut struct {
	After int64 // mutating calls that still happen; 0 = all

	seen atomic.Int64
}

// Fault implements Injector.
func (p *PowerCut) Fault(op Op) error {
	if op.Kind&OpMutating != 0 {
		if seen := p.seen.Add(1); p.After != 0 && seen > p.After {
			return ErrPowerCut
		}
		return nil
	}
	if p.Cut() {
		return ErrPowerCut
	}
	return nil
}

// Points counts the mutating calls so far, those that failed included.
func (p *PowerCut) Points() int64 { return p.seen.Load() }

// Cut reports whether the power is gone: a mutating call has been refused.
func (p *PowerCut) Cut() bool { return p.After != 0 && p.seen.Load() > p.After }
