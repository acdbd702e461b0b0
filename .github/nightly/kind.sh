#!/bin/bash
# From an empty kind cluster to a promotion that is merged and answered, as docs/cluster.md has it: Argo CD and KubeRay from
# their releases, an image and a bundle in stores beside the cluster, and a repository that Argo CD reads over HTTP.
# usage: .github/nightly/kind.sh SUMMARY    after `make demo` and `.github/image.sh cpu`, on GitHub's ubuntu-24.04
set -euo pipefail
summary=$1
here=$(dirname "$0")
argocd=https://raw.githubusercontent.com/argoproj/argo-cd/v3.5.1/manifests/install.yaml
repository=/srv/git/mergeline.git
work=$(mktemp -d)
mergeline=$PWD/.venv/bin/mergeline

say() { echo "$(date +%T) $*"; }

say "a cluster, and a registry and a store of bundles in its network"
kind create cluster --wait 3m --config - <<'KIND'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"
KIND
docker run --detach --name registry --network kind --publish 127.0.0.1:5001:5000 registry:2
docker exec kind-control-plane sh -c 'mkdir -p /etc/containerd/certs.d/localhost:5001 &&
  echo "[host.\"http://registry:5000\"]" >/etc/containerd/certs.d/localhost:5001/hosts.toml'
docker run --detach --name minio --network kind --publish 127.0.0.1:9000:9000 minio/minio:RELEASE.2025-09-07T16-13-09Z server /data
address() { docker inspect --format '{{(index .NetworkSettings.Networks "kind").IPAddress}}' "$1"; }
store=$(address minio):9000
host=$(docker network inspect kind --format '{{range .IPAM.Config}}{{println .Gateway}}{{end}}' | grep -m 1 -F .)

say "the image"
podman push --tls-verify=false --digestfile "$work/digest" mergeline:cpu docker://localhost:5001/mergeline:nightly

say "the repository, over HTTP"
sudo mkdir -p /srv/git
sudo chown "$USER" /srv/git
git clone --quiet --bare . "$repository"
git -C "$repository" update-ref refs/heads/main "$(git rev-parse HEAD)"
git -C "$repository" symbolic-ref HEAD refs/heads/main
sudo apt-get install -qq --yes --no-install-recommends apache2 >/dev/null
sudo tee /etc/apache2/conf-available/git.conf >/dev/null <<'APACHE'
SetEnv GIT_PROJECT_ROOT /srv/git
SetEnv GIT_HTTP_EXPORT_ALL
ScriptAlias /git/ /usr/lib/git-core/git-http-backend/
<Directory /usr/lib/git-core>
  Options +ExecCGI
  Require all granted
</Directory>
APACHE
sudo git config --system --add safe.directory "$repository"
sudo a2enmod --quiet cgid env alias
sudo a2enconf --quiet git
sudo service apache2 restart
url=http://$host/git/mergeline.git
git ls-remote "$url" main

git clone --quiet "$repository" "$work/repository"
cd "$work/repository"
staging=gitops/environments/staging
sed "s|sha256:0\{64\}|$(cat "$work/digest")|" "$OLDPWD/$here/kustomization.yaml" >$staging/kustomization.yaml
sed -i -E 's/(min_replicas|max_replicas): .*/\1: 1/' $staging/serve-config.yaml
git rm -r --quiet gitops/environments/production
sed -i "s|https://github.com/OWNER/REPOSITORY.git|$url|" gitops/argocd/kustomization.yaml
git -c user.name=nightly -c user.email=nightly@localhost commit --quiet --all --message "A small cluster"
git push --quiet origin HEAD:main
cd - >/dev/null

say "Argo CD $argocd"
kubectl create namespace argocd
kubectl apply --server-side --namespace argocd --filename "$argocd" >/dev/null
kubectl --namespace argocd patch configmap argocd-cmd-params-cm --type merge \
  --patch '{"data": {"applicationsetcontroller.enable.progressive.syncs": "true"}}'
kubectl --namespace argocd rollout restart deployment argocd-applicationset-controller
kubectl apply --server-side --field-manager mergeline --kustomize gitops/health
kubectl --namespace argocd wait --for=condition=Available --timeout=10m deployment --all

say "secrets"
kubectl create namespace mergeline-staging
kubectl --namespace mergeline-staging create secret generic ray-token --from-literal "auth_token=$(openssl rand -hex 32)"
kubectl --namespace mergeline-staging create secret generic artifact-store \
  --from-literal AWS_ACCESS_KEY_ID=minioadmin --from-literal AWS_SECRET_ACCESS_KEY=minioadmin \
  --from-literal AWS_DEFAULT_REGION=us-east-1

say "the environments"
kubectl apply --filename - <<ARGOCD
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: mergeline, namespace: argocd}
spec:
  project: default
  source: {repoURL: $url, path: gitops/argocd, targetRevision: main}
  destination: {server: https://kubernetes.default.svc, namespace: argocd}
  syncPolicy:
    automated: {}
    syncOptions: [ServerSideApply=true]
ARGOCD
for try in $(seq 180); do
  kubectl --namespace argocd get application mergeline-staging >/dev/null 2>&1 && break
  test "$try" -lt 180
  sleep 5
done
kubectl --namespace argocd wait --for=jsonpath='{.status.health.status}'=Healthy --timeout=40m application/mergeline-staging

say "the bundle, into the store"
export AWS_ACCESS_KEY_ID=minioadmin AWS_SECRET_ACCESS_KEY=minioadmin AWS_DEFAULT_REGION=us-east-1
digest=$(basename "$(dirname .mergeline/bundles/*/manifest.json)")
aws --endpoint-url "http://$store" s3 mb s3://line
aws --endpoint-url "http://$store" s3 cp --quiet --recursive ".mergeline/bundles/$digest" "s3://line/bundles/$digest"
sed -i "s#uri: file://.*#uri: s3://line/bundles/$digest?scheme=http\&region=us-east-1\&endpoint_override=$store#" \
  .mergeline/models/screw/1.yaml

say "a promotion"
"$mergeline" promote 1 --to staging --repo "$repository" --merge
merged=$(date +%s)
kubectl --namespace argocd annotate --overwrite application mergeline-staging argocd.argoproj.io/refresh=normal
kubectl --namespace mergeline-staging port-forward service/mergeline-serve-svc 8000:8000 >/dev/null &
forward=$!
trap 'kill $forward' EXIT
for try in $(seq 300); do
  curl --silent http://127.0.0.1:8000/v2/models/screw | grep -q "\"sha256\":\"$digest\"" && break
  test "$try" -lt 300
  sleep 1
done
answered=$(date +%s)
kubectl --namespace mergeline-staging rollout status --timeout=5m deployment/observer
"$mergeline" predict --url http://127.0.0.1:8000 --json ".mergeline/bundles/$digest/probe.png" || test $? = 3
say "answered by the new version $((answered - merged)) s after the merge"
echo "From the merge to the first answer of the new version: $((answered - merged)) s" >>"$summary"
