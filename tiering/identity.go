package tiering

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"lagoon/internal/vfs"
	"lagoon/segment"
)

// IdentityFile names a tier's directory as what it is. Its absence where a tier is known tells a disk that is not mounted
// from an empty tier.
const IdentityFile = "lagoon.tier"

const (
	identityVersion = 1
	identityBytes   = 4096 // bounds the file; ours has about 150
)

// Identity is what IdentityFile says.
type Identity struct {
	Version   int    `json:"version"`
	Tier      string `json:"tier"`       // name in the configuration
	UUID      string `json:"uuid"`       // of this copy: 22 characters, base64url
	ClusterID string `json:"cluster_id"` // of the cluster whose data it holds
	Created   bool   `json:"-"`          // by this call: the catalogue does not know it yet
}

// Claim checks that fs is the tier that it is configured to be, or makes a new tier of it, durably. knownUUID is what the
// catalogue has for this name, "" when it has none; after a nil error the caller stores Identity.UUID there. A crash in
// between is harmless: a tier of this cluster and name is taken back.
//
// Errors: ErrTierMissing when a UUID is known and the file is absent, or is another tier's (then ErrTierForeign as well);
// ErrTierForeign when it belongs to another cluster or has another name; *segment.CorruptError when it cannot be read as
// an identity. Nothing is written in any of these cases: an empty mount point is never adopted in place of a known tier.
func Claim(fsys vfs.FS, name, clusterID, knownUUID string) (Identity, error) {
	id, err := readIdentity(fsys)
	switch {
	case errors.Is(err, fs.ErrNotExist) && knownUUID != "":
		return Identity{}, fmt.Errorf("tier %s: %s has no %s, but this cluster's tier %s (%s) was there: mount its file system, or correct the path of the tier: %w",
			name, fsys.Root(), IdentityFile, name, knownUUID, ErrTierMissing)
	case errors.Is(err, fs.ErrNotExist):
		return createIdentity(fsys, name, clusterID)
	case err != nil:
		return Identity{}, fmt.Errorf("tier %s: %w", name, err)
	}
	return id, id.check(fsys, name, clusterID, knownUUID)
}

func (id Identity) check(fsys vfs.FS, name, clusterID, knownUUID string) error {
	path := fsys.Root() + "/" + IdentityFile
	switch {
	case id.ClusterID != clusterID:
		return fmt.Errorf("tier %s: %s says cluster %q, this is cluster %q: give the tier a path of its own, or start the cluster that owns it: %w",
			name, path, id.ClusterID, clusterID, ErrTierForeign)
	case id.Tier != name:
		return fmt.Errorf("tier %s: %s says tier %q: are two paths swapped, or was the tier renamed in the configuration: %w",
			name, path, id.Tier, ErrTierForeign)
	case knownUUID != "" && id.UUID != knownUUID:
		return fmt.Errorf("tier %s: %s says %q, this cluster's is %q: mount the right file system, this is another or an older copy: %w, %w",
			name, path, id.UUID, knownUUID, ErrTierMissing, ErrTierForeign)
	}
	return nil
}

// readIdentity reads and checks the file; fs.ErrNotExist when it is absent.
func readIdentity(fsys vfs.FS) (Identity, error) {
	path := fsys.Root() + "/" + IdentityFile
	data, err := vfs.ReadFile(fsys, IdentityFile, identityBytes)
	if err != nil {
		return Identity{}, err
	}
	var id Identity
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&id); err != nil {
		return Identity{}, &segment.CorruptError{Path: path, Pos: -1, Err: fmt.Errorf("not a tier identity, restore it from a copy: %w", err)}
	}
	switch {
	case id.Version != identityVersion:
		return Identity{}, fmt.Errorf("%s is of version %d, this program knows version %d; use the program that wrote it", path, id.Version, identityVersion)
	case id.Tier == "" || id.UUID == "" || id.ClusterID == "":
		return Identity{}, &segment.CorruptError{Path: path, Pos: -1, Err: errors.New("tier, uuid or cluster_id is missing, restore it from a copy")}
	}
	return id, nil
}

func createIdentity(fsys vfs.FS, name, clusterID string) (Identity, error) {
	if name == "" || clusterID == "" {
		return Identity{}, fmt.Errorf("tier %q of cluster %q: both must be known before a tier is made", name, clusterID)
	}
	var uuid [16]byte
	rand.Read(uuid[:]) // never fails: crypto/rand
	id := Identity{Version: identityVersion, Tier: name, UUID: base64.RawURLEncoding.EncodeToString(uuid[:]), ClusterID: clusterID, Created: true}
	data, err := json.MarshalIndent(id, "", "  ")
	if err == nil {
		err = vfs.WriteFileAtomic(fsys, IdentityFile, append(data, '\n'))
	}
	if err != nil {
		return Identity{}, fmt.Errorf("tier %s: write %s/%s: %w", name, fsys.Root(), IdentityFile, err)
	}
	return id, nil
}
