// Package order is the signed instruction that lets one terminal write one
// disk: envelope, order, commence, and the rules by which an agent accepts
// them. The server signs, the agent verifies; nothing here touches a network,
// a clock or a disk. A Cleared value, the only key to a writable disk, can be
// made by Verify followed by Clear and by nothing else.
//
// Format: docs/PROTOCOL.md, "Signed order".
package order

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"labswarm/api"
)

// Types separate the domains of signatures: no signed object can be played as
// another.
const (
	TypeOrder    = "labswarm/order/v1"
	TypeCommence = "labswarm/commence/v1"
)

// Values of Order.Personalise: what becomes of a host whose own name and keys
// could not be put on its disk.
const (
	PersonaliseRequire = "require" // it fails
	PersonaliseTry     = "try"     // it goes on with a warning
	PersonaliseOff     = "off"     // nothing is tried: the disk keeps the image's identity
)

// MaxEnvelope is the largest envelope that is looked at, in bytes.
const MaxEnvelope = 64 << 10

// Envelope carries a payload as the exact bytes that were signed: there is no
// canonical form to disagree about.
type Envelope struct {
	Type    string `json:"type"`
	KeyID   string `json:"key_id"`
	Payload string `json:"payload"` // standard base64 of the exact bytes
	Sig     string `json:"sig"`     // standard base64, ed25519 (RFC 8032)
}

// HostID are the facts by which a machine knows that an order is for it.
type HostID struct {
	Name   string   `json:"name"`
	Room   string   `json:"room"`
	UUID   string   `json:"uuid"` // "" = the machine has none worth using
	MACs   []string `json:"macs"`
	Serial string   `json:"serial"` // system serial, "" = not usable
}

// DiskID names the one disk that may be written.
type DiskID struct {
	WWN    string `json:"wwn"`
	Serial string `json:"serial"`
	Model  string `json:"model"`
	Bytes  int64  `json:"bytes"`
	Sector int    `json:"sector"` // logical sector size, bytes
	Bus    string `json:"bus"`
}

// ImageRef names what is to be written.
type ImageRef struct {
	Name           string `json:"name"`
	Version        string `json:"version"`
	ManifestDigest string `json:"manifest_digest"` // hex SHA-256 of manifest.json
	MinDiskBytes   int64  `json:"min_disk_bytes"`
	Sector         int    `json:"sector"` // logical sector size of the image, bytes
}

// Swarm admits the host to the swarm of its image. Package swarm/peercert makes
// and reads both certificates.
type Swarm struct {
	Authority  []byte `json:"authority"`   // certificate of the swarm's authority, DER
	Cert       []byte `json:"cert"`        // certificate over the agent's boot key: this host, job and boot; DER
	PlainPeers bool   `json:"plain_peers"` // standard clients without certificate may fetch from this host
}

// Order is the instruction for one host in one boot.
type Order struct {
	V           int    `json:"v"` // 1
	ID          string `json:"order_id"`
	ServerKeyID string `json:"server_key_id"`
	IssuedAt    string `json:"issued_at"` // for the log only: no clock is trusted
	Job         uint64 `json:"job_id"`
	Attempt     int    `json:"attempt"`
	FenceEpoch  string `json:"fence_epoch"` // random, new after each restore of the store
	FenceFloor  uint64 `json:"fence_floor"` // a commence must carry a greater fence
	Host        HostID `json:"host"`
	BootID      string `json:"boot_id"`
	AgentNonce  string `json:"agent_nonce"`
	Disk        DiskID `json:"disk"`
	// Replace is the foreign data on that disk which may be overwritten; any other
	// found there is a reason to refuse.
	Replace     []api.Mark `json:"replace,omitempty"`
	Image       ImageRef   `json:"image"`
	Swarm       Swarm      `json:"swarm"`
	Scope       string     `json:"scope"`       // disk
	Mode        string     `json:"mode"`        // delta
	After       string     `json:"after"`       // reboot, poweroff
	Personalise string     `json:"personalise"` // require, try, off
	// Network is the fixed address of the system on the disk; nil = as the image has it.
	Network       *api.Network `json:"network,omitempty"`
	ExpiresAfterS int64        `json:"expires_after_s"`
}

// Commence lets one verified order begin to write.
type Commence struct {
	OrderID    string `json:"order_id"`
	BootID     string `json:"boot_id"`
	AgentNonce string `json:"agent_nonce"`
	FenceEpoch string `json:"fence_epoch"`
	Fence      uint64 `json:"fence"`
	PlanDigest string `json:"plan_digest"` // of the agent's own plan, hex
}

// KeyID is the short name of a public key: the first 8 bytes of its SHA-256 in
// lower-case hex.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:8])
}

// signed returns the bytes under the signature: type, 0x00, little-endian
// length, payload.
func signed(typ string, payload []byte) []byte {
	msg := make([]byte, 0, len(typ)+9+len(payload))
	msg = append(msg, typ...)
	msg = append(msg, 0)
	msg = binary.LittleEndian.AppendUint64(msg, uint64(len(payload)))
	return append(msg, payload...)
}

// Sign seals a value (Order or Commence) as an envelope of the given type.
func Sign(key ed25519.PrivateKey, typ string, value any) (*Envelope, error) {
	payload, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", typ, err)
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("sign " + typ + ": not an ed25519 private key")
	}
	return &Envelope{
		Type:    typ,
		KeyID:   KeyID(pub),
		Payload: base64.StdEncoding.EncodeToString(payload),
		Sig:     base64.StdEncoding.EncodeToString(ed25519.Sign(key, signed(typ, payload))),
	}, nil
}

// PlanDigest binds a commence to what the agent is about to do. All numbers
// are counts of cells and bytes as in api.PlanCounts.
func PlanDigest(orderID string, disk DiskID, write, keep, zero int, bytesWrite int64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "labswarm plan v1\x00%s\x00%s\x00%s\x00%s\x00%d\x00%d\x00%s\x00%d\x00%d\x00%d\x00%d",
		orderID, disk.WWN, disk.Serial, disk.Model, disk.Bytes, disk.Sector, disk.Bus, write, keep, zero, bytesWrite))
	return hex.EncodeToString(sum[:])
}
