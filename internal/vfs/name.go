package vfs

import (
	"errors"
	"io/fs"
	"path"
	"strings"
)

// cleanName checks name against the contract (ErrEscape) and gives its one canonical spelling; "." is the root.
// A ".." element is refused even where it would stay inside: nothing of ours needs it, and a name that came from a
// client gets no second chance.
func cleanName(name string) (string, error) {
	if name == "" || name[0] == '/' || strings.IndexByte(name, 0) >= 0 {
		return "", ErrEscape
	}
	for rest, more := name, true; more; {
		var elem string
		elem, rest, more = strings.Cut(rest, "/")
		if elem == ".." {
			return "", ErrEscape
		}
	}
	return path.Clean(name), nil
}

// cleanFileName is cleanName for operations on a name inside a directory: the root itself is not one.
func cleanFileName(name string) (string, error) {
	clean, err := cleanName(name)
	if err == nil && clean == "." {
		return "", fs.ErrInvalid
	}
	return clean, err
}

// splitName cuts a clean name into its directory ("." for the root) and last element.
func splitName(clean string) (dir, last string) {
	if i := strings.LastIndexByte(clean, '/'); i >= 0 {
		return clean[:i], clean[i+1:]
	}
	return ".", clean
}

// elements lists the elements of a clean directory name; the root has none.
func elements(clean string) []string {
	if clean == "." {
		return nil
	}
	return strings.Split(clean, "/")
}

// nameError gives err, if any, the operation and the full path. A refused name is shown as it came.
func nameError(op, root, name string, err error) error {
	full := root + "/" + name
	if !errors.Is(err, ErrEscape) {
		full = path.Clean(full)
	}
	return pathError(op, full, err)
}

// renameError is nameError for two names.
func renameError(root, oldName, newName string, err error) error {
	return nameError("rename", root, oldName+" -> "+path.Clean(root+"/"+newName), err)
}
