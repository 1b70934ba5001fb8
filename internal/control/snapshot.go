package control

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// SaveSnapshot writes what is known of all tiers to a file, whole or not at all, so that a
// process can start while the control centre is away.
func SaveSnapshot(file string, tiers map[string]Members) error {
	data, err := json.MarshalIndent(tiers, "", "  ")
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if err := WriteFile(file, append(data, '\n')); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// WriteFile replaces the content of a file, whole or not at all.
func WriteFile(file string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // after the rename there is nothing left to remove
	_, err = tmp.Write(data)
	if serr := tmp.Sync(); err == nil {
		err = serr
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	return err
}

// LoadSnapshot reads what SaveSnapshot wrote.
func LoadSnapshot(file string) (map[string]Members, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", err)
	}
	return DecodeSnapshot(data)
}

// DecodeSnapshot parses and checks the content of a snapshot file.
func DecodeSnapshot(data []byte) (map[string]Members, error) {
	var tiers map[string]Members
	if err := json.Unmarshal(data, &tiers); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	for tier, m := range tiers {
		n, err := Normalize(tier, m)
		if err != nil {
			return nil, fmt.Errorf("decode snapshot: %w", err)
		}
		tiers[tier] = n
	}
	return tiers, nil
}
