package vfs

import (
	"fmt"
	"strings"
)

// Kind is one operation of FS, File or of the Closer of Lock, or a set of them (OpWrite|OpSync).
type Kind uint32

// The operations. OpClose and OpUnlock give resources back even when they are made to fail.
const (
	OpCreate Kind = 1 << iota
	OpOpen
	OpRename
	OpRemove
	OpList
	OpStat
	OpMkdir
	OpSyncDir
	OpLock
	OpUnlock
	OpUsage
	OpRead
	OpWrite
	OpSize
	OpTruncate
	OpAllocate
	OpSync
	OpClose
	opEnd
)

// Sets of operations.
const (
	// OpAny is every operation.
	OpAny = opEnd - 1
	// OpMutating are those that change what a crash may leave behind, or decide it.
	OpMutating = OpCreate | OpRename | OpRemove | OpMkdir | OpSyncDir | OpWrite | OpTruncate | OpAllocate | OpSync
)

var kindNames = [...]string{
	"create", "open", "rename", "remove", "list", "stat", "mkdir", "syncdir", "lock", "unlock", "usage",
	"read", "write", "size", "truncate", "allocate", "sync", "close",
}

// String names the operations in k, joined by "|".
func (k Kind) String() string {
	var names []string
	for i, name := range kindNames {
		if k&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Op is one call on a decorated FS or on a file opened through it.
type Op struct {
	Kind Kind
	Name string // as the caller gave it
	To   string // the new name of a rename
	Off  int64  // byte offset; the new size of a truncate
	Len  int64  // bytes asked for
	Mode Mode   // of an open
	N    int64  // number of this call in its decorator, from 1
	Err  error  // result; set for WithTrace only
}

var modeNames = [...]string{ReadOnly: "read-only", ReadWrite: "read-write", Direct: "direct", DirectSync: "direct-sync"}

// String renders the call on one line for golden files; N is left out.
func (o Op) String() string {
	s := o.Kind.String()
	if o.Name != "" {
		s += " " + o.Name
	}
	switch o.Kind {
	case OpRename:
		s += " -> " + o.To
	case OpOpen:
		if int(o.Mode) < len(modeNames) {
			s += " " + modeNames[o.Mode]
		}
	case OpRead, OpWrite, OpAllocate:
		s += fmt.Sprintf(" %d+%d", o.Off, o.Len)
	case OpTruncate:
		s += fmt.Sprintf(" %d", o.Off)
	}
	if o.Err != nil {
		s += ": " + o.Err.Error()
	}
	return s
}
