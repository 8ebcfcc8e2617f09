package vfs

// WithTrace returns fs with every call, of its files as well, reported to fn when it is done, with its result in
// Op.Err. fn runs on the calling goroutine; concurrent calls of fn are possible and need its own lock.
func WithTrace(fs FS, fn func(Op)) FS { return &hookFS{fs: fs, after: fn} }
