package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	provisionerName       = "localkube/local-path"
	provisionedBy         = "pv.kubernetes.io/provisioned-by"
	selectedNode          = "volume.kubernetes.io/selected-node"
	storageProvisioner    = "volume.kubernetes.io/storage-provisioner"
	resyncPeriod          = time.Minute
	directoryMode         = 0o755 // Like a fresh cloud disk: only fsGroup lets a non-root pod write.
	volumePrefix          = "pvc-"
	claimKind, volumeKind = "claim", "volume"
)

// key names one object to look at: a claim to answer or a volume to reclaim.
type key struct{ kind, namespace, name string }

// provisioner answers claims with `local` volumes, because the kubelet applies
// a pod's fsGroup to those and never to hostPath.
type provisioner struct {
	client  kubernetes.Interface
	root    string
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	queue   workqueue.TypedRateLimitingInterface[key]
}

func runProvisioner() {
	flags := flag.NewFlagSet("provisioner", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	root := flags.String("root", "", "folder that holds the volumes")
	_ = flags.Parse(os.Args[1:])
	if *kubeconfig == "" || !filepath.IsAbs(*root) {
		fmt.Fprintln(os.Stderr, "provisioner: --kubeconfig and an absolute --root are required")
		os.Exit(2)
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		klog.Fatalf("kubeconfig: %v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newProvisioner(kubernetes.NewForConfigOrDie(config), *root).run(ctx); err != nil {
		klog.Fatal(err)
	}
}

func newProvisioner(client kubernetes.Interface, root string) *provisioner {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[key](100*time.Millisecond, 30*time.Second)
	return &provisioner{client: client, root: root, queue: workqueue.NewTypedRateLimitingQueue(limiter)}
}

func (p *provisioner) run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(p.client, resyncPeriod)
	claims := factory.Core().V1().PersistentVolumeClaims()
	volumes := factory.Core().V1().PersistentVolumes()
	classes := factory.Storage().V1().StorageClasses()
	p.claims, p.volumes, p.classes = claims.Lister(), volumes.Lister(), classes.Lister()
	_ = classes.Informer()
	p.watch(claims.Informer(), claimKind)
	p.watch(volumes.Informer(), volumeKind)
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("cache of %v never filled", kind)
		}
	}
	klog.Infof("provisioning volumes in %s", p.root)
	go func() {
		<-ctx.Done()
		p.queue.ShutDown()
	}()
	for p.next(ctx) {
	}
	return nil
}

func (p *provisioner) watch(informer cache.SharedIndexInformer, kind string) {
	enqueue := func(object any) {
		if named, ok := object.(metav1.Object); ok {
			p.queue.Add(key{kind, named.GetNamespace(), named.GetName()})
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
	})
	if err != nil {
		klog.Fatalf("watching each %s: %v", kind, err)
	}
}

func (p *provisioner) next(ctx context.Context) bool {
	item, stopped := p.queue.Get()
	if stopped {
		return false
	}
	defer p.queue.Done(item)
	var err error
	if item.kind == claimKind {
		err = p.provision(ctx, item)
	} else {
		err = p.reclaim(ctx, item)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		klog.Errorf("%s %s/%s: %v", item.kind, item.namespace, item.name, err)
		p.queue.AddRateLimited(item)
		return true
	}
	p.queue.Forget(item)
	return true
}

// provision answers one pending claim. Every step can be repeated: the volume's
// name follows from the claim's UID, so a crash in between is made good.
func (p *provisioner) provision(ctx context.Context, item key) error {
	claim, err := p.claims.PersistentVolumeClaims(item.namespace).Get(item.name)
	if err != nil {
		return err
	}
	ours := claim.Annotations[storageProvisioner] == provisionerName
	if !ours || claim.Spec.VolumeName != "" || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return nil
	}
	class, err := p.classes.Get(*claim.Spec.StorageClassName)
	if err != nil {
		return err
	}
	node := claim.Annotations[selectedNode]
	if node == "" {
		return nil // WaitForFirstConsumer: the scheduler has not chosen yet.
	}
	if mode := claim.Spec.VolumeMode; mode != nil && *mode == corev1.PersistentVolumeBlock {
		klog.Warningf("claim %s/%s asks for a block device, which this class cannot give", item.namespace, item.name)
		return nil
	}
	name := volumePrefix + string(claim.UID)
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(path, directoryMode); err != nil {
		return err
	}
	_, err = p.client.CoreV1().PersistentVolumes().Create(ctx, volumeFor(claim, class, name, path, node), metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	klog.Infof("volume %s answers claim %s/%s", name, item.namespace, item.name)
	return nil
}

func volumeFor(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, name, path, node string) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	sameHost := corev1.NodeSelectorRequirement{
		Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
	}
	terms := []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{sameHost}}}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: provisionerName}},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeReclaimPolicy: reclaim,
			StorageClassName:              class.Name,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
			NodeAffinity:                  &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}},
			ClaimRef: &corev1.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace,
				Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
			},
		},
	}
}

// reclaim removes the folder of a released volume and then the volume.
func (p *provisioner) reclaim(ctx context.Context, item key) error {
	volume, err := p.volumes.Get(item.name)
	if err != nil {
		return err
	}
	ours := volume.Annotations[provisionedBy] == provisionerName && volume.Spec.Local != nil
	deletes := volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	if !ours || !deletes || volume.Status.Phase != corev1.VolumeReleased || volume.DeletionTimestamp != nil {
		return nil
	}
	// The path comes from an object that others can write: touch nothing but a folder of our own.
	path := volume.Spec.Local.Path
	if filepath.Dir(path) != filepath.Clean(p.root) || !strings.HasPrefix(filepath.Base(path), volumePrefix) {
		return fmt.Errorf("refusing to remove %q, which is not below %q", path, p.root)
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	klog.Infof("volume %s and its folder are removed", item.name)
	return p.client.CoreV1().PersistentVolumes().Delete(ctx, item.name, metav1.DeleteOptions{})
}
