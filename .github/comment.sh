#!/bin/sh
# Leaves a file as a pull request's comment, in place of the one that begins with the same line.
# usage: GH_TOKEN=… .github/comment.sh NUMBER FILE
set -eu
comments="repos/$GITHUB_REPOSITORY/issues"
mine=".[] | select(.user.login == \"github-actions[bot]\" and (.body | startswith(\"$(head -n 1 "$2")\"))) | .id"
before=$(gh api --paginate "$comments/$1/comments" --jq "$mine" | head -n 1)
if [ -n "$before" ]; then
  gh api --silent --method PATCH "$comments/comments/$before" --field body=@"$2"
else
  gh api --silent "$comments/$1/comments" --field body=@"$2"
fi
