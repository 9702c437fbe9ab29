"""What the pack takes of ComfyUI, and what ComfyUI asks of the pack's objects: names and arguments, as facts.

Read in the versions below: the first two whole and run, the newest in single files. test_interface.py holds the nodes
to this table, and a ComfyUI at COMFYUI_PATH too.
"""

READ = ("0.3.64", "0.33.0", "0.38.1")

# Modules of which no newer text was to be had than that of 0.33.0.
OLDER = ("comfy.patcher_extension", "comfy.supported_models_base", "comfy.weight_adapter", "comfy_execution.utils")
OLDER += ("comfy_api.v0_0_2",)

# module -> name -> how it is called, or nothing where it is only read.
NAMES = {
    "comfy.cli_args": {"args": ""},
    "comfy.latent_formats": {
        "Wan21": "()",
        "Wan21.latent_rgb_factors": "",
        "Wan21.latent_rgb_factors_bias": "",
        "Wan21.latents_mean": "",
        "Wan21.taesd_decoder_name": "",
    },
    "comfy.ldm.modules.attention": {
        "optimized_attention": (
            "(q, k, v, heads, mask=bias, skip_reshape=True, skip_output_reshape=True, transformer_options=options)"
        ),
    },
    "comfy.lora": {
        "calculate_weight": "(patches, weight, key, intermediate_dtype=dtype)",
        "load_lora": "(lora, to_load, log_missing=True)",
        "model_lora_keys_unet": "(model, key_map)",
    },
    "comfy.model_base": {
        "BaseModel": "(config, kind, device=device)",
        "BaseModel.diffusion_model": "",
        "BaseModel.memory_required": "(shape)",
        "BaseModel.state_dict_for_saving": "(state)",
        "ModelType": "",
        "ModelType.FLOW": "",
    },
    "comfy.model_management": {
        "free_memory": "(nbytes, device)",
        "get_torch_device": "()",
        "load_models_gpu": "(models, memory_required=nbytes)",
        "soft_empty_cache": "()",
        "text_encoder_device": "()",
        "text_encoder_offload_device": "()",
        "throw_exception_if_processing_interrupted": "()",
        "unet_offload_device": "()",
        "vae_device": "()",
        "vae_offload_device": "()",
    },
    "comfy.model_patcher": {
        "CoreModelPatcher": "",
        "ModelPatcher": "(model, load_device=device, offload_device=device)",
        "ModelPatcher.add_object_patch": "(name, value)",
        "ModelPatcher.add_patches": "(patches, strength_patch=1.0, strength_model=1.0)",
        "ModelPatcher.cached_patcher_init": "",
        "ModelPatcher.clone": "()",
        "ModelPatcher.get_all_wrappers": "(kind)",
        "ModelPatcher.get_attachment": "(key)",
        "ModelPatcher.get_model_object": "(name)",
        "ModelPatcher.is_dynamic": "()",
        "ModelPatcher.get_nested_additional_models": "()",
        "ModelPatcher.load_device": "",
        "ModelPatcher.model": "",
        "ModelPatcher.model_options": "",
        "ModelPatcher.object_patches": "",
        "ModelPatcher.offload_device": "",
        "ModelPatcher.patches": "",
        "ModelPatcher.patches_uuid": "",
        "ModelPatcher.set_attachments": "(key, value)",
        "ModelPatcher.weight_wrapper_patches": "",
        "ModelPatcher.wrappers": "",
    },
    "comfy.model_prefetch": {
        "make_prefetch_queue": "(blocks, device, options)",
        "prefetch_queue_pop": "(queue, device, block)",
    },
    "comfy.ops": {
        "CastWeightBiasOp": "",
        "CastWeightBiasOp.comfy_cast_weights": "",
        "CastWeightBiasOp.weight_function": "",
        "_load_quantized_module": "",
        "cast_bias_weight": "(layer, dtype=dtype, device=device, bias_dtype=dtype)",  # and offloadable=, in newer ones
        "manual_cast": "",
        "manual_cast.Conv3d": "",
        "manual_cast.LayerNorm": "",
        "manual_cast.Linear": "",
        "manual_cast.RMSNorm": "",
        "mixed_precision_ops": "({}, dtype)",
        "pick_operations": "",  # (None, dtype, load_device=device, model_config=config), in those with QUANT_ALGOS
        "uncast_bias_weight": "(layer, weight, bias, stream)",
    },
    "comfy.patcher_extension": {
        "WrapperExecutor": "",
        "WrapperExecutor.new_class_executor": "(function, model, wrappers)",
        "WrapperExecutor.execute": "(x, t, None, text, None, options, history=history)",
        "WrappersMP": "",
        "WrappersMP.APPLY_MODEL": "",
    },
    "comfy.quant_ops": {"QUANT_ALGOS": ""},
    "comfy.sd": {
        "CLIP": "",
        "CLIP.encode_from_tokens": "(tokens)",
        "CLIP.tokenize": "(text, disable_weights=True)",
        "VAE": "(sd=state, dtype=dtype)",
        "VAE.decode": "(latents)",
        "VAE.device": "",
        "VAE.encode": "(frames)",
        "VAE.first_stage_model": "",
        "VAE.latent_dim": "",
        "VAE.output_channels": "",
        "VAE.patcher": "",
        "VAE.process_output": "",
        "VAE.spacial_compression_decode": "()",
        "VAE.temporal_compression_decode": "()",
        "VAE.throw_exception_if_invalid": "()",
        "VAE.vae_dtype": "",
    },
    "comfy.supported_models_base": {
        "BASE": "(unet_config)",
        "BASE.latent_format": "",
        "BASE.set_inference_dtype": "(dtype, None)",
        "BASE.supported_inference_dtypes": "",
        "BASE.unet_config": "",
        "BASE.unet_extra_config": "",
    },
    "comfy.utils": {
        "ProgressBar": "(total)",
        "ProgressBar.update_absolute": "(value, total, picture)",
    },
    "comfy.weight_adapter": {
        "LoRAAdapter": "(keys, weights)",
        "LoRAAdapter.loaded_keys": "",
        "LoRAAdapter.weights": "",
        "WeightAdapterBase": "()",
    },
    "comfy_api.v0_0_2": {
        "Input": "",
        "Input.Video": "",
        "InputImpl": "",
        "InputImpl.VideoFromFile": "(path)",
    },
    "comfy_execution.caching": {"DependencyAwareCache": ""},
    "comfy_execution.graph": {
        "DynamicPrompt.all_node_ids": "()",
        "DynamicPrompt.get_display_node_id": "(node)",
        "DynamicPrompt.get_original_prompt": "()",
        "DynamicPrompt.get_node": "(node)",
        "DynamicPrompt.get_parent_node_id": "(node)",
        "DynamicPrompt.get_real_node_id": "(node)",
        "DynamicPrompt.original_prompt": "",
        "ExecutionBlocker": "(None)",
    },
    "comfy_execution.progress": {
        "ProgressRegistry.dynprompt": "",
        "ProgressRegistry.nodes": "",
        "get_progress_state": "()",
    },
    "comfy_execution.utils": {"ExecutionContext.node_id": "", "get_executing_context": "()"},
    "execution": {
        "PromptQueue.currently_running": "",
        "PromptQueue.get_history": "(prompt_id)",
        "PromptQueue.mutex": "",
    },
    "folder_paths": {
        "add_model_folder_path": "(kind, folder)",
        "folder_names_and_paths": "",
        "get_filename_list": "(kind)",
        "get_folder_paths": "(kind)",
        "get_full_path": "(kind, name)",
        "get_input_directory": "()",
        "get_output_directory": "()",
        "get_temp_directory": "()",
        "get_user_directory": "()",
        "models_dir": "",
    },
    "latent_preview": {
        "LatentPreviewer.decode_latent_to_preview_image": "(kind, latent)",
        "get_previewer": "(device, latent_format)",
    },
    "nodes": {"NODE_CLASS_MAPPINGS": ""},
    "server": {
        "PromptServer": "",
        "PromptServer.client_id": "",
        "PromptServer.instance": "",
        "PromptServer.last_node_id": "",
        "PromptServer.last_prompt_id": "",
        "PromptServer.prompt_queue": "",
        "PromptServer.routes": "",
        "PromptServer.send_progress_text": "(text, node, client)",
        "PromptServer.send_sync": "(event, values, client)",
    },
}

# Names that not every version has; the code looks before it takes them. name -> the versions read without it.
ABSENT = {
    "comfy.model_patcher.CoreModelPatcher": ("0.3.64",),
    "comfy.model_patcher.ModelPatcher.cached_patcher_init": ("0.3.64",),  # only set
    "comfy.model_patcher.ModelPatcher.is_dynamic": ("0.3.64",),
    "comfy.model_prefetch.make_prefetch_queue": ("0.3.64",),
    "comfy.model_prefetch.prefetch_queue_pop": ("0.3.64",),
    "comfy.ops._load_quantized_module": ("0.3.64",),
    "comfy.ops.mixed_precision_ops": ("0.3.64",),
    "comfy.quant_ops.QUANT_ALGOS": ("0.3.64",),
    "comfy.ops.uncast_bias_weight": ("0.3.64",),
    "comfy_execution.caching.DependencyAwareCache": ("0.33.0", "0.38.1"),
}

# Attributes that another file of ComfyUI puts on.
PUT_BY = {"server.PromptServer.last_prompt_id": "main.py"}

# What variables of nodes/ hold, where no import says it. "FILE variable", or "variable" in every file.
HELD = {
    "batches.py graph": "comfy_execution.graph.DynamicPrompt",
    "approximate": "latent_preview.LatentPreviewer",
    "clone": "comfy.model_patcher.ModelPatcher",
    "codecs.py vae": "comfy.sd.VAE",
    "decoders.py vae": "comfy.sd.VAE",
    "engine_vae.py vae": "comfy.sd.VAE",
    "expansion.py graph": "comfy_execution.graph.DynamicPrompt",
    "here": "comfy_execution.utils.ExecutionContext",
    "live.py bar": "comfy.utils.ProgressBar",
    "live.py found": "comfy.latent_formats.Wan21",
    "management": "comfy.model_management",
    "patcher": "comfy.model_patcher.ModelPatcher",
    "place.py graph": "comfy_execution.graph.DynamicPrompt",
    "runs.py board": "server.PromptServer",
    "runs.py dynamic": "comfy_execution.graph.DynamicPrompt",
    "runs.py queue": "execution.PromptQueue",
    "text_socket.py clip": "comfy.sd.CLIP",
    "watch.py server": "server.PromptServer",
}
# What the code itself puts on those objects.
OWN = ("ModelPatcher.helios_told", "ModelPatcher.identity", "VAE.identity", "VAE.tiled", "VAE.helios", "VAE.ready")

# Our objects in the place of ComfyUI's: what the newest version read calls them with, by method. Arguments without a
# default are given in their places, the others by name.
ANSWERS = {
    "managed.py Component": (
        "comfy.model_patcher.ModelPatcher",
        {
            "model_size": "()",
            "loaded_size": "()",
            "current_loaded_device": "()",
            "partially_load": "(device_to, extra_memory=0, force_patch_weights=False)",
            "partially_unload": "(device_to, memory_to_free=0, force_patch_weights=False)",
            "detach": "(unpatch_all=True)",
        },
    ),
    "engine.py HeliosModel": (
        "comfy.model_base.BaseModel",
        {
            "memory_required": "(input_shape, cond_shapes={})",
            "state_dict_for_saving": (
                "(unet_state_dict, clip_state_dict=None, vae_state_dict=None, clip_vision_state_dict=None)"
            ),
        },
    ),
    "engine_quant.py HostQuantLinear": (
        None,  # ComfyUI looks for them on any layer
        {
            "convert_weight": "(weight, inplace=False)",
            "set_weight": "(weight, inplace_update=False, seed=None, return_weight=False)",
        },
    ),
    "sockets.py VAESocket": (
        "comfy.sd.VAE",
        {
            "decode": "(samples_in, vae_options={})",
            "decode_tiled": "(samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None)",
            "encode": "(pixel_samples, not_video=None)",
            "encode_tiled": (
                "(pixel_samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None, not_video=None)"
            ),
            "get_sd": "()",
            "is_dynamic": "()",
            "spacial_compression_decode": "()",
            "spacial_compression_encode": "()",
            "temporal_compression_decode": "()",
        },
    ),
    "text_socket.py TextSocket": (
        "comfy.sd.CLIP",
        {
            "add_patches": "(patches, strength_patch=1.0, strength_model=1.0)",
            "clone": "(disable_dynamic=False)",
            "encode_from_tokens": "(tokens, return_pooled=False, return_dict=False)",
            "encode_from_tokens_scheduled": "(tokens, unprojected=False, add_dict={}, show_pbar=True)",
            "is_dynamic": "()",
            "tokenize": "(text, return_word_ids=False)",
        },
    ),
    "sockets.py HistorySocket": (None, {"_comfy_cache_tensors": "()"}),  # asked of all outputs, if they have it
    "clip_video.py ClipVideo": (
        None,  # comfy_api's VideoInput, which has moved between modules
        {"get_dimensions": "()", "get_frame_count": "()", "get_frame_rate": "()"},
    ),
}
