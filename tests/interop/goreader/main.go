// Goreader checks a ledger that is served as C2SP tlog-tiles with the tree of Go's checksum
// database, golang.org/x/mod/sumdb, which has the same hashes: the checkpoint's signature, tiles
// against the root, proofs of entries and of growth.
//
//	goreader PREFIX VKEY < questions
//
// Questions are JSON: "leaves" maps positions to leaf hashes, "trees" lists older checkpoints, and
// "records" and "growth" hold proofs that the service gave. It exits 1 where anything is refused.
package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type questions struct {
	Leaves  map[string]string // position from 0: leaf hash, hex
	Trees   []string          // notes of older checkpoints
	Records []struct {        // inclusion proofs
		Index int64
		Leaf  string
		Proof []string
		Note  string
	}
	Growth []struct { // consistency proofs
		Proof    []string
		Old, New string
	}
}

func main() {
	if err := run(os.Args[1], os.Args[2], os.Stdin); err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
}

func run(prefix, vkey string, in io.Reader) error {
	var asked questions
	if err := json.NewDecoder(in).Decode(&asked); err != nil {
		return err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	server := server(prefix)
	signed, err := server.get("checkpoint")
	if err != nil {
		return err
	}
	tree, err := open(string(signed), verifier)
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, server)
	for position, leaf := range asked.Leaves {
		n, err := strconv.ParseInt(position, 10, 64)
		if err != nil {
			return err
		}
		if err := checkLeaf(reader, tree, n, leaf); err != nil {
			return fmt.Errorf("leaf %d: %w", n, err)
		}
	}
	for _, older := range asked.Trees {
		if err := checkOlder(reader, tree, older, verifier); err != nil {
			return err
		}
	}
	if err := checkGiven(&asked, verifier); err != nil {
		return err
	}
	fmt.Println("accepted", tree.N)
	return nil
}

// checkLeaf looks a leaf up in tiles that lead to the root, and proves it from them.
func checkLeaf(reader tlog.HashReader, tree tlog.Tree, n int64, leaf string) error {
	wanted, err := parseHex(leaf)
	if err != nil {
		return err
	}
	found, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
	if err != nil {
		return err
	}
	if found[0] != wanted {
		return fmt.Errorf("expected %x, found %v", wanted, found[0])
	}
	proof, err := tlog.ProveRecord(tree.N, n, reader)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, n, wanted)
}

// checkOlder proves from tiles that an older checkpoint's tree is the beginning of this one.
func checkOlder(reader tlog.HashReader, tree tlog.Tree, older string, v note.Verifier) error {
	old, err := open(older, v)
	if err != nil {
		return err
	}
	proof, err := tlog.ProveTree(tree.N, old.N, reader)
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash)
}

// checkGiven checks proofs that the service made.
func checkGiven(asked *questions, v note.Verifier) error {
	for _, record := range asked.Records {
		tree, err := open(record.Note, v)
		if err != nil {
			return err
		}
		leaf, err := parseHex(record.Leaf)
		if err != nil {
			return err
		}
		proof, err := hashes(record.Proof)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, record.Index, leaf); err != nil {
			return fmt.Errorf("record %d: %w", record.Index, err)
		}
	}
	for _, growth := range asked.Growth {
		old, err := open(growth.Old, v)
		if err != nil {
			return err
		}
		grown, err := open(growth.New, v)
		if err != nil {
			return err
		}
		proof, err := hashes(growth.Proof)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, grown.N, grown.Hash, old.N, old.Hash); err != nil {
			return fmt.Errorf("growth from %d to %d: %w", old.N, grown.N, err)
		}
	}
	return nil
}

// open checks a checkpoint's signature and reads its three lines.
func open(signed string, v note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != v.Name() || lines[3] != "" {
		return tlog.Tree{}, fmt.Errorf("malformed checkpoint %q", opened.Text)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

func hashes(encoded []string) ([]tlog.Hash, error) {
	var found []tlog.Hash
	for _, line := range encoded {
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != tlog.HashSize {
			return nil, fmt.Errorf("malformed hash %q", line)
		}
		found = append(found, tlog.Hash(raw))
	}
	return found, nil
}

func parseHex(digits string) (tlog.Hash, error) {
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != tlog.HashSize {
		return tlog.Hash{}, fmt.Errorf("malformed hash %q", digits)
	}
	return tlog.Hash(raw), nil
}

// server is the log's prefix; it reads tiles as the checksum database's client does.
type server string

func (s server) get(path string) ([]byte, error) {
	response, err := http.Get(string(s) + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return io.ReadAll(response.Body)
}

func (s server) Height() int { return 8 }

func (s server) SaveTiles([]tlog.Tile, [][]byte) {}

func (s server) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var read [][]byte
	for _, tile := range tiles {
		// The checksum database names the height of its tiles, which is always 8 here.
		data, err := s.get("tile/" + strings.TrimPrefix(tile.Path(), "tile/8/"))
		if err != nil {
			return nil, err
		}
		read = append(read, data)
	}
	return read, nil
}
