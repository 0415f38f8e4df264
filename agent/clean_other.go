//go:build !linux

package agent

import (
	"errors"

	"github.com/idpool/idpool/seam"
	"github.com/idpool/idpool/uidpool"
)

// HelperCommand is the first argument of this program as the agent starts it for
// what it does not do itself; see [HelperMain].
const HelperCommand = "__clear-keyring"

func removeIPC(uidpool.IPCObject) error { return errors.ErrUnsupported }

func clearKeyring(seam.Seam, uidpool.UID) error { return errors.ErrUnsupported }

// HelperMain does nothing elsewhere than on Linux.
func HelperMain() int { return 1 }
