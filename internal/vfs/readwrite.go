package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// tmpSuffix marks a file that is being written. One found at start is a leftover of a crash and may be removed.
const tmpSuffix = ".tmp"

// ReadFile reads the whole regular file name, at most maxBytes bytes of it: a larger file is ErrTooLarge, checked
// before anything is allocated. The slice is the caller's. The file must not change meanwhile.
func ReadFile(fsys FS, name string, maxBytes int64) (data []byte, err error) {
	f, err := fsys.Open(name, ReadOnly)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > maxBytes {
		return nil, fmt.Errorf("read %s/%s: %d bytes, limit %d: %w", fsys.Root(), name, size, maxBytes, ErrTooLarge)
	}
	data = make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return data[:n], nil
}

// WriteFileAtomic replaces, or makes, the file name with data: it writes name+".tmp", syncs it, renames it over name
// and syncs the directory. The directory must exist. One writer per name at a time.
//
// When it returns nil, data survive a power cut. When it returns an error, or the power goes at any moment, name holds
// either its old content (or still does not exist) or all of data, never a mixture; which of the two is not known until
// the next start, if the error came from the last two steps. A leftover name+".tmp" may stay; the next call replaces it.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	clean, err := cleanFileName(name)
	if err != nil {
		return nameError("write", fsys.Root(), name, err)
	}
	tmp := clean + tmpSuffix
	if err := writeSynced(fsys, tmp, data); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, clean); err != nil {
		return errors.Join(err, removeLeftover(fsys, tmp))
	}
	dir, _ := splitName(clean)
	return fsys.SyncDir(dir)
}

// writeSynced makes a new file tmp that holds data on stable storage; its name is not durable yet.
func writeSynced(fsys FS, tmp string, data []byte) error {
	f, err := fsys.Create(tmp)
	if errors.Is(err, fs.ErrExist) {
		if err := fsys.Remove(tmp); err != nil {
			return err
		}
		f, err = fsys.Create(tmp)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.SyncData()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, removeLeftover(fsys, tmp))
	}
	return nil
}

// removeLeftover frees the space of a temporary file that will not be used, as after ENOSPC.
func removeLeftover(fsys FS, tmp string) error {
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
