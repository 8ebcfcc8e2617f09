package vfs

// SameMemFile reports whether two names stand for one file.
func SameMemFile(m *Mem, a, b string) bool {
	x, errX := m.lookup(a)
	y, errY := m.lookup(b)
	return errX == nil && errY == nil && x == y
}
