package tiering

import "context"

// MigrateChunked is Migrate with smaller transfers, for tests that look between them.
func MigrateChunked(ctx context.Context, job Job, env Env, chunkBytes int) error {
	return migrate(ctx, job, env, chunkBytes)
}
